"""All settings of a pruning run, composed of groups."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ValidationError, model_validator

from icbs.config.group_defaults import adapt_to_groups
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
from icbs.config.messages import explain
from icbs.config.names import UPDATING
from icbs.config.old_names import translate
from icbs.errors import ConfigError
from problems.warn import warn


# Pydantic lists the fields of the last base first.
class PrunerConfig(
    RunFolderSettings,
    BudgetSettings,
    SolverSettings,
    WeightSettings,
    AcceptanceSettings,
    CurvatureSettings,
    BlockSettings,
    StartSettings,
    GroupSettings,
    LayerSettings,
):
    """Settings of :class:`icbs.Pruner`; methods are named as in the paper.

    The defaults were chosen on the garment classifier; the paper's settings are in
    ``configs/paper.yaml``.
    """

    paper: PaperSettings = PaperSettings()
    """Settings that are only needed to reproduce the paper."""

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        settings, notes = translate(given)
        for note in notes:
            warn(f"{note}; the old name goes with the next version", DeprecationWarning)
        return settings

    @model_validator(mode="after")
    def _moves_between_layers(self) -> Self:
        if self.allocation != "loss":
            return self
        if self.block_size == "all":
            raise ValueError(
                "block_size='all' is one block, and allocation='loss' makes blocks of some layers; "
                "set allocation='global' for one cardinality of all weights"
            )
        if self.constraint != "layer":
            raise ValueError(
                f"constraint {self.constraint!r} fixes the count of each {self.constraint}, and "
                "allocation='loss' moves weights between layers; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _initial_weights(self) -> Self:
        updating = self.initial in UPDATING
        if updating and self.weights == "fixed":
            raise ValueError(
                f"initial={self.initial!r} changes the kept weights, and weights='fixed' keeps "
                "those of the dense model; set weights='initial' (or 'global'), or start from "
                "another method, such as 'exchange'"
            )
        if self.weights == "initial" and not updating:
            raise ValueError(
                f"weights='initial' takes the weights of the initial method, and "
                f"initial={self.initial!r} has none; set initial to {', '.join(UPDATING[:-1])} or "
                f"{UPDATING[-1]}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _settings_of_groups(cls, given: Any) -> Any:
        return adapt_to_groups(given) if isinstance(given, dict) else given

    @classmethod
    def of(cls, **settings: Any) -> PrunerConfig:
        """Build a configuration, with errors that name the setting, the value and the remedy.

        Raises
        ------
        ConfigError
            For an unknown setting or a value out of range.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error
