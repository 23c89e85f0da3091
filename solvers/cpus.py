"""Number of usable CPUs, on every platform."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Count the CPUs that this process may use.

    Uses the affinity mask where the system has one (Linux); elsewhere (macOS, Windows) all CPUs
    are counted.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
