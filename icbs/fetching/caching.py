"""Where things that were fetched or computed once are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Return ``$ICBS_CACHE``, else the user's cache folder; it need not exist."""
    return Path(os.environ.get("ICBS_CACHE") or pooch.os_cache("icbs"))
