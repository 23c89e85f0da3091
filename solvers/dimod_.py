"""Old name of :mod:`solvers.adapters.dimod`, kept for one release."""

from problems.lazy import attach

_RENAMED = {name: f"solvers.adapters.{name}" for name in ("IcbsSampler", "as_sampler")}
__getattr__, __dir__ = attach(globals(), {}, _RENAMED)
