"""A mask maker: any method that prunes a model to a density, with recovery, in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.objective import Loss
from icbs.errors import ConfigError
from icbs.export.compressed import load_compressed, save_compressed
from icbs.layerwise.pruning import prune_layerwise
from icbs.layerwise.sweep import Method
from icbs.plugins import RECOVERIES
from icbs.pruner import Pruner
from icbs.recovery import FOLDER as RECOVERY
from icbs.recovery.config import AUTO, RecoveryConfig
from icbs.recovery.recover import make_method, recover
from icbs.recovery.result import RecoveryResult
from icbs.run.locked_folder import CONFIG
from icbs.run.result import Progress
from problems.suggest import did_you_mean

ICBS = "icbs"
METHODS = (ICBS, *get_args(Method))
"""Methods that make masks: iCBS, and those of :func:`icbs.layerwise.prune_layerwise`."""
MODEL = "compressed.safetensors"
"""The pruned, and recovered, model of a folder: the last file that is written."""


def share(density: float, quantity: str | None = None) -> dict[str, Any]:
    """Return the setting that asks for a density, or for a share of a quantity."""
    return {"density": density} if quantity is None else {"budget": {quantity: density}}


@dataclass(frozen=True)
class Made:
    """Masks of one density; the model has the pruned, and recovered, weights."""

    masks: dict[str, Tensor]
    seconds: float
    """Wall seconds of this call."""
    size: int
    """Bytes of the compressed model."""
    recovered: RecoveryResult | None = None
    """Figures of the recovery, if there was one in this call."""

    @property
    def density(self) -> float:
        """Share of the prunable weights that is kept."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return kept / sum(mask.numel() for mask in self.masks.values())


@dataclass(frozen=True)
class MaskMaker:
    """A method with its settings, for any density."""

    method: str
    config: PrunerConfig
    recovery: RecoveryConfig | None = None
    solver: Any = None
    """Instance of a solver, for iCBS."""
    quantity: str | None = None
    """Quantity of a budget of groups, ``macs``, ``parameters`` or ``latency``, whose share takes
    the place of the density."""
    layerwise_settings: ClassVar[tuple[str, ...]] = (
        "density", "densities", "include", "exclude", "compare", "constraint",
    )  # fmt: skip
    """Settings that methods other than iCBS respect."""

    @classmethod
    def of(
        cls,
        method: str,
        config: PrunerConfig,
        recovery: str | RecoveryConfig | None = None,
        solver: Any = None,
        quantity: str | None = None,
    ) -> MaskMaker:
        """Check the method and its settings before any work.

        The density, or the budget, of ``config`` has no effect.

        Raises
        ------
        ConfigError
            For an unknown method, or a setting that it does not have.
        """
        if method not in METHODS:
            near = did_you_mean(method, METHODS)
            raise ConfigError(f"unknown method {method!r}{near}; choose from {', '.join(METHODS)}")
        if config.budget is not None and quantity is None:
            raise ConfigError(
                "a budget takes the place of the density; leave it out where several densities "
                "are tried, or let a search try budgets: budget='macs', without a share"
            )
        if method != ICBS and config.groups is not None:
            raise ConfigError(
                f"method={method!r} prunes single weights, and groups are pruned by method='icbs'; "
                "leave groups out, or the method"
            )
        if method == ICBS:
            Pruner(config, solver=solver)
        else:
            unused = sorted(config.model_fields_set - {*cls.layerwise_settings, "allocation"})
            if unused or solver is not None or config.allocation != "uniform":
                names = unused or (["solver"] if solver is not None else ["allocation"])
                raise ConfigError(
                    f"{', '.join(names)} has no effect on the masks of method={method!r}; leave "
                    "it out, or use method='icbs'"
                )
            if config.pattern is None and config.constraint != "layer":
                raise ConfigError(
                    f"constraint={config.constraint!r} has no effect on the masks of "
                    f"method={method!r}; leave it out, use compare={config.constraint!r}, or a "
                    "pattern N:M"
                )
        if isinstance(recovery, str):
            recovery = RecoveryConfig.of(method=recovery)
        if recovery is not None and recovery.method != AUTO:
            make_method(RECOVERIES.check(recovery.method), recovery.options)
        return cls(method, config, recovery, solver, quantity)

    def check_several(self) -> None:
        """Refuse settings that fix the density, where several are tried.

        Raises
        ------
        ConfigError
        """
        if (pattern := self.config.pattern) is not None:
            raise ConfigError(
                f"constraint {pattern} fixes the density at {pattern.density:g}; leave it out "
                "where several densities are tried"
            )

    @property
    def share_of(self) -> str:
        """Total that a density is a share of."""
        if self.quantity is not None:
            return {"macs": "the model's MACs"}.get(self.quantity, f"the model's {self.quantity}")
        return "the weights" if self.config.groups is None else "the groups"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the masks, in types of JSON."""
        recovery = self.recovery
        return {
            "method": self.method,
            "pruner": self.config.model_dump(mode="json", exclude_unset=True),
            "recovery": None if recovery is None else recovery.model_dump(exclude_unset=True),
        }

    def at(self, density: float) -> PrunerConfig:
        """Return the settings for a density, or for a share of the quantity.

        Raises
        ------
        ConfigError
        """
        return PrunerConfig.of(
            **self.config.model_dump(exclude_unset=True, exclude={"density", "budget"})
            | share(density, self.quantity)
        )

    def make(
        self,
        config: PrunerConfig,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        folder: Path,
        *,
        start: Mapping[str, Tensor] | None = None,
        dense: nn.Module | None = None,
        callback: Callable[[Progress], object] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Made:
        """Prune a model in place, or load what was made in the folder before.

        An interrupted call is continued by the same call.

        Parameters
        ----------
        config : PrunerConfig
            Settings with the density.
        model : nn.Module
            With the weights before pruning, in evaluation mode.
        batches : iterable of (inputs, targets)
            Read again by the recovery.
        loss : callable
        folder : Path
        start : mapping of str to Tensor, optional
            Initial masks of iCBS, of the density of ``config``.
        dense : nn.Module, optional
            The dense model, for a recovery.
        callback : callable, optional
            Called after each pass of iCBS; a true return value ends its run.
        about : mapping, optional
            Notes for the manifest of the run.
        """
        began = time.perf_counter()
        path = folder / MODEL
        if path.exists():
            state, masks = load_compressed(path)
            model.load_state_dict(state)
            return Made(masks, 0.0, path.stat().st_size)
        if self.method == ICBS:
            masks = self._icbs(config, model, batches, loss, folder, start, callback, about)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            masks = self._layerwise(config, model, batches)
        recovered = None
        if self.recovery is not None:
            recovered = recover(
                model,
                masks,
                batches,
                loss,
                dense=dense,
                config=self.recovery,
                run=folder / RECOVERY,
                progress=False,
            )
        size = save_compressed(model.state_dict(), masks, path)
        return Made(masks, time.perf_counter() - began, size, recovered)

    def _icbs(
        self,
        config: PrunerConfig,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        folder: Path,
        start: Mapping[str, Tensor] | None,
        callback: Callable[[Progress], object] | None,
        about: Mapping[str, Any] | None,
    ) -> dict[str, Tensor]:
        options: dict[str, Any] = {"callback": callback, "progress": False}
        if (folder / CONFIG).exists():
            if self.solver is not None or ":" in config.solver:
                options["solver"] = self.solver or config.solver
            return Pruner.resume(folder, model, batches, loss, **options).masks
        pruner = Pruner(config, solver=self.solver)
        return pruner.prune(
            model, batches, loss, masks=start, run=folder, about=about, **options
        ).masks

    def _layerwise(
        self, config: PrunerConfig, model: nn.Module, batches: Iterable[Any]
    ) -> dict[str, Tensor]:
        method: Any = self.method
        found = prune_layerwise(
            model,
            batches,
            method,
            density=config.density,
            pattern=None if config.pattern is None else str(config.pattern),
            compare=config.compare if "compare" in config.model_fields_set else None,
            densities=config.densities,
            include=config.include,
            exclude=config.exclude,
        )
        return found.masks
