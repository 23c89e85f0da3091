"""Conformance checks for built-in and third-party parts of the pruner.

Each check raises AssertionError with a message that names the violated requirement.

>>> from icbs.curvature.fisher import Fisher
>>> from icbs.testing import check_curvature
>>> check_curvature(lambda settings: Fisher(settings.curvature_samples))
"""

from icbs.testing.acceptance import check_acceptance
from icbs.testing.curvature import check_curvature
from icbs.testing.kinds import check_kind
from icbs.testing.scores import check_score

__all__ = ["check_acceptance", "check_curvature", "check_kind", "check_score"]
