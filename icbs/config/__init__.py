"""Settings of a run: their groups, ranges and defaults, and how they are read and explained."""

from icbs.config.pruner_config import (
    DRAWN,
    CurvatureName,
    InitialName,
    Precision,
    PrunerConfig,
    SampleName,
    Scope,
    SelectionName,
    brief,
    explain,
)

__all__ = [
    "DRAWN",
    "CurvatureName",
    "InitialName",
    "Precision",
    "PrunerConfig",
    "SampleName",
    "Scope",
    "SelectionName",
    "brief",
    "explain",
]
