"""Data that other distributions carry: fetching it, and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$ICBS_CACHE``, else the user's cache folder; it need not exist."""
    import pooch

    return Path(os.environ.get("ICBS_CACHE") or pooch.os_cache("icbs"))
