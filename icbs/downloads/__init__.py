"""Downloads of data and models, and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$ICBS_CACHE``, or else the user's cache folder, which may not exist yet."""
    import pooch

    return Path(os.environ.get("ICBS_CACHE") or pooch.os_cache("icbs"))
