"""Settings of a run: their groups, ranges and defaults, and how they are read and explained."""

from icbs.config.fields import (
    AcceptanceName,
    CurvatureName,
    InitialName,
    Precision,
    SampleName,
    Scope,
    SelectionName,
)
from icbs.config.groups import (
    AcceptanceSettings,
    BlockSettings,
    BudgetSettings,
    CurvatureSettings,
    GroupSettings,
    LayerSettings,
    PaperSettings,
    RunFolderSettings,
    SolverSettings,
    StartSettings,
    WeightSettings,
)
from icbs.config.messages import brief, explain
from icbs.config.names import known_names
from icbs.config.pruner_config import PrunerConfig

__all__ = [
    "AcceptanceName",
    "AcceptanceSettings",
    "BlockSettings",
    "BudgetSettings",
    "CurvatureName",
    "CurvatureSettings",
    "GroupSettings",
    "InitialName",
    "LayerSettings",
    "PaperSettings",
    "Precision",
    "PrunerConfig",
    "RunFolderSettings",
    "SampleName",
    "Scope",
    "SelectionName",
    "SolverSettings",
    "StartSettings",
    "WeightSettings",
    "brief",
    "explain",
    "known_names",
]
