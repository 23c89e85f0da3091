"""How many CPUs there are to use, on every platform."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Count the CPUs that this process may use.

    Its affinity mask where the system has one (Linux, and containers bound to some of the
    CPUs); all CPUs elsewhere (macOS, Windows).
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
