"""Gradual pruning: the density decreases in steps, with recovery between them."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.config.constants import MAX_SAMPLES
from icbs.data.objective import Loss
from icbs.data.pytree import tensors
from icbs.data.samples import Samples, read_samples
from icbs.density.folder import STEPS, SUMMARY, MakerFolder, tensors_digest_of
from icbs.density.judge import as_batches
from icbs.density.mask_maker import ICBS, MODEL, Made, MaskMaker
from icbs.density.resize import resize_masks, sampled_norms
from icbs.density.step_settings import step_configs
from icbs.errors import RunFolderError
from icbs.export.compressed import save_compressed
from icbs.export.masks import save_masks
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from icbs.recovery.config import RecoveryConfig
from icbs.run.result import Progress
from icbs.run.results_files import MASKS

log = logging.getLogger("icbs")


@dataclass(frozen=True)
class StepsProgress:
    """Progress of a gradual pruning, after a pass of iCBS, and after each step."""

    step: int
    """Number of the step, from 1."""
    steps: int
    density: float
    progress: Progress | None
    """After a pass: the progress of the step's run."""
    model: nn.Module
    """The model in its current state."""
    made: Made | None = None
    """After a step: its masks, and the figures of its recovery."""


@dataclass(frozen=True, repr=False)
class StepsResult:
    """The masks of a gradual pruning; the model has the weights of the last step."""

    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, in the shape of the weight."""
    densities: list[float]
    """Density of each step."""
    density: float
    """Share of the prunable weights that is kept."""
    seconds: float
    """Wall seconds of this call."""
    method: str

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dict of JSON types."""
        return {
            "method": self.method,
            "densities": self.densities,
            "density": self.density,
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        return (
            f"StepsResult(density={self.density:.4g}, steps={len(self.densities)}, "
            f"method={self.method!r}, {self.seconds:.1f} s)"
        )


def prune_in_steps(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    steps: int | Sequence[float] = 5,
    decay: str = "cubic",
    start_density: float = 1.0,
    method: str = ICBS,
    recover: str | RecoveryConfig | None = None,
    run: str | Path | None = None,
    config: PrunerConfig | None = None,
    solver: Any = None,
    callback: Callable[[StepsProgress], object] | None = None,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> StepsResult:
    """Prune a model in place in several steps, each of which begins with the weights of the last.

    Between steps a recovery can change the kept weights. iCBS starts each step from the masks of
    the last one, pruned further, and pruned weights return at their dense values when others move;
    its ``passes`` and ``time_limit`` are those of all steps together. Other methods rank the
    weights of the pruned model, in which pruned ones are 0 (gradual pruning, Zhu and Gupta, arXiv
    1710.01878).

    Parameters
    ----------
    model : nn.Module
        The dense model. After an error it has its dense weights again.
    batches : iterable of (inputs, targets)
        Training samples, read once.
    loss : callable
        ``loss(outputs, targets)``, averaging over samples.
    steps : int or sequence of float
        Number of steps (1 is one-shot), or the density after each of them, which must end at the
        density of the settings.
    decay : str, default "cubic"
        Course of the density, a name of :data:`icbs.density.schedule.DECAYS`; see
        :func:`icbs.density.schedule.density_after`. Layers with a density in ``densities`` follow
        the same course to their own.
    start_density : float, default 1.0
        Density before the first step.
    method : str
        As for :func:`icbs.search`.
    recover : str or RecoveryConfig, optional
        Recovery after each step: a method of :func:`icbs.recover`, or settings.
    run : path, optional
        Folder with a run for each step, and the results. Interrupted pruning is continued by the
        same call.
    config : PrunerConfig, optional
        All settings at once.
    solver : optional
        Solver of iCBS; see :class:`icbs.Pruner`.
    callback : callable, optional
        ``callback(progress)`` with a :class:`StepsProgress`.
    about : mapping, optional
        Notes for the summary, and for the manifests of the runs of iCBS.
    **settings
        Settings of the pruner by name, with the final ``density``.

    Returns
    -------
    StepsResult

    Raises
    ------
    ConfigError, LayerError, DataError
        Before any work: for an unknown decay or method, for a schedule that does not decrease or
        ends at another density, or a density that prunes nothing or all of a layer.
    RunFolderError
        If the folder is of other pruning, in use, or can't be written.

    Examples
    --------
    >>> prune_in_steps(model, batches, loss, steps=5, density=0.1)  # doctest: +SKIP
    """
    given = ({} if config is None else config.model_dump(exclude_unset=True)) | settings
    chosen = PrunerConfig.of(**given)
    maker = MaskMaker.of(method, chosen, recover, solver)
    configs = step_configs(maker, steps, decay, start_density)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()) if run is None else run)
        folder = MakerFolder(path, STEPS)
        folder.check()
        plain = stack.enter_context(evaluation_mode(model))
        for one in configs:
            find_layers(plain, one)  # each layer must have kept and pruned weights
        samples = read_samples(batches, MAX_SAMPLES)
        facts = maker.settings | {
            "steps": [one.model_dump(mode="json", exclude_unset=True) for one in configs],
            "model": tensors_digest_of(plain.state_dict()),
            "samples": tensors_digest_of([*tensors(samples.inputs), samples.targets]),
        }
        stack.enter_context(folder.opened(facts))
        return _Steps(plain, samples, loss, maker, configs, folder, callback, about).run()


@dataclass
class _Steps:
    """Gradual pruning in progress."""

    model: nn.Module
    samples: Samples
    loss: Loss
    maker: MaskMaker
    configs: list[PrunerConfig]
    folder: MakerFolder
    callback: Callable[[StepsProgress], object] | None
    about: Mapping[str, Any] | None

    def run(self) -> StepsResult:
        """Do all steps; restore the dense weights after an error."""
        dense = {name: value.clone() for name, value in self.model.state_dict().items()}
        teacher = None if self.maker.recovery is None else copy.deepcopy(self.model)
        seconds, made = 0.0, None
        try:
            for number, config in enumerate(self.configs, 1):
                made = self._step(number, config, made, dense, teacher)
                seconds += made.seconds
            assert made is not None
            result = StepsResult(
                made.masks,
                [config.density for config in self.configs],
                made.density,
                seconds,
                self.maker.method,
            )
            self._write(result)
        except BaseException:
            self.model.load_state_dict(dense)
            raise
        return result

    def _step(
        self,
        number: int,
        config: PrunerConfig,
        before: Made | None,
        dense: Mapping[str, Tensor],
        teacher: nn.Module | None,
    ) -> Made:
        count, path = len(self.configs), self.folder.path / f"step-{number}"
        log.info("step %d of %d: density %g", number, count, config.density)
        start = None
        if before is not None and not (path / MODEL).exists() and self.maker.method == ICBS:
            start = self._start(config, before.masks, dense)

        def after_pass(progress: Progress) -> None:
            self._tell(StepsProgress(number, count, config.density, progress, self.model))

        made = self.maker.make(
            config,
            self.model,
            as_batches(self.samples),
            self.loss,
            path,
            start=start,
            dense=teacher,
            callback=after_pass,
            about=self.about,
        )
        self._tell(StepsProgress(number, count, config.density, None, self.model, made))
        return made

    def _start(
        self, config: PrunerConfig, masks: Mapping[str, Tensor], dense: Mapping[str, Tensor]
    ) -> dict[str, Tensor] | None:
        """Return pruned weights to their dense values, and the last masks, pruned further."""
        with torch.no_grad():
            for name, mask in masks.items():
                weight: Any = self.model.get_submodule(name).weight
                weight.copy_(torch.where(mask.to(weight.device), weight, dense[f"{name}.weight"]))
        if getattr(config, "groups", None):
            return None
        norms = sampled_norms(self.model, config, self.samples)
        return resize_masks(self.model, masks, config, norms)

    def _tell(self, progress: StepsProgress) -> None:
        if self.callback is not None:
            self.callback(progress)

    def _write(self, result: StepsResult) -> None:
        """Write masks, the compressed model and the summary.

        Raises
        ------
        RunFolderError
            With the result as an attribute.
        """
        path = self.folder.path
        try:
            save_masks(result.masks, path / MASKS)
            save_compressed(self.model.state_dict(), result.masks, path / MODEL)
            facts = result.summary() | {"about": dict(self.about or {})}
            self.folder.write(SUMMARY, json.dumps(facts, indent=2) + "\n")
        except RunFolderError as error:
            raise RunFolderError(str(error), result) from error
