"""Density search: the lowest density at which a pruned model still meets a target."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from icbs import streams
from icbs.config import PrunerConfig
from icbs.config.constants import MAX_SAMPLES
from icbs.data.objective import Loss
from icbs.data.pytree import tensors
from icbs.data.samples import Samples, read_samples
from icbs.density.bisection import next_density, number_of_runs, rounded
from icbs.density.costs import count_positions, nonzero_macs
from icbs.density.folder import (
    MakerFolder,
    density_folder,
    read_points,
    tensors_digest_of,
    write_point,
)
from icbs.density.judge import (
    Evaluate,
    Judge,
    Measurement,
    as_batches,
    by_function,
    by_samples,
    held_out_split,
)
from icbs.density.mask_maker import ICBS, MODEL, MaskMaker
from icbs.density.resize import input_norms, resize_masks
from icbs.density.result import Curve, Point, SearchResult
from icbs.density.table import write_answer, write_result, write_tables
from icbs.density.target import Target
from icbs.errors import ConfigError, TargetError
from icbs.export.compressed import load_compressed
from icbs.layerwise.sweep import pieces_of
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from icbs.recovery.config import RecoveryConfig
from icbs.run.result import Progress

log = logging.getLogger("icbs")
MANIFEST = "search.json"
HELDOUT_SHARE = 0.2
"""Share of the samples that is held out for the judge, if it has none of its own."""
BATCH = 500
"""Samples of the judge in one forward pass."""


@dataclass(frozen=True)
class SearchProgress:
    """Progress of a search, after a pass of iCBS, and after each run."""

    density: float
    number: int
    """Number of the run, from 1."""
    runs: int
    """Expected number of runs."""
    progress: Progress | None
    """After a pass: the progress of the run."""
    point: Point | None
    """After a run: its point."""
    curve: Curve


def search(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    max_loss_increase: float | None = None,
    max_perplexity_ratio: float | None = None,
    min_accuracy: float | None = None,
    max_accuracy_loss: float | None = None,
    method: str = ICBS,
    recover: str | RecoveryConfig | None = None,
    heldout: Iterable[Any] | None = None,
    evaluate: Evaluate | Judge | None = None,
    low: float = 0.01,
    high: float = 0.9,
    tolerance: float = 0.1,
    confidence: float = 0.95,
    certain: bool = False,
    run: str | Path | None = None,
    config: PrunerConfig | None = None,
    solver: Any = None,
    callback: Callable[[SearchProgress], object] | None = None,
    **settings: Any,
) -> SearchResult:
    """Find the lowest density that meets a target, by bisection on a logarithmic scale.

    Each run of iCBS starts from the masks of its neighbour: of the nearest density tried, pruned
    further or grown by Wanda's score (:func:`icbs.density.resize.resize_masks`). Other methods
    compute each mask from the dense weights. The judge's samples are never used for pruning or
    recovery: the result of ``evaluate``, ``heldout``, or a fifth of ``batches``, which is then held
    out.

    Parameters
    ----------
    model : nn.Module
        The dense model. At the end it has the weights of the density found; after an error it is
        dense again.
    batches : iterable of (inputs, targets)
        Training samples, read once.
    loss : callable
        ``loss(outputs, targets)``, averaging over samples.
    max_loss_increase : float, optional
        Target: largest increase of the mean loss over that of the dense model.
    max_perplexity_ratio : float, optional
        Target: largest perplexity as a multiple of the dense model's.
    min_accuracy, max_accuracy_loss : float, optional
        Target: lowest accuracy; largest loss of accuracy, 0.005 for half a point.
    method : str
        ``icbs``, or a method of :func:`icbs.layerwise.prune_layerwise`: ``magnitude``,
        ``wanda``, ``exchange``, ``sparsegpt``, ``alps``.
    recover : str or RecoveryConfig, optional
        Recovery after each run: a method of :func:`icbs.recover`, or settings.
    heldout : iterable of (inputs, targets), optional
        Samples of the judge.
    evaluate : callable, optional
        ``evaluate(model)`` returns figures on samples of its own; see
        :data:`icbs.density.judge.Evaluate`.
    low, high : float
        Range of densities.
    tolerance : float, default 0.1
        Relative accuracy of the density found.
    confidence : float, default 0.95
        Probability that an interval contains the true value.
    certain : bool, default False
        Whether a density meets the target only if its whole interval does.
    run : path, optional
        Folder with a run for each density, and the curve. An interrupted search is continued by
        the same call; a call with another target or range uses the runs that are there.
    config : PrunerConfig, optional
        All settings at once.
    solver : optional
        Solver of iCBS; see :class:`icbs.Pruner`.
    callback : callable, optional
        ``callback(progress)`` with a :class:`SearchProgress`.
    **settings
        Settings of the pruner by name.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigError, LayerError, DataError
        Before any work: for a missing, contradictory or impossible target, a figure that is not
        measured, an unknown method, or a density that prunes nothing or all of a layer.
    TargetError
        If the dense model misses the target (before any work), or the highest density does.
    RunFolderError
        If the folder is of another search, in use, or can't be written.

    Examples
    --------
    >>> result = search(model, batches, loss, max_accuracy_loss=0.005)  # doctest: +SKIP
    """
    target = Target.of(
        {
            "max_loss_increase": max_loss_increase,
            "max_perplexity_ratio": max_perplexity_ratio,
            "min_accuracy": min_accuracy,
            "max_accuracy_loss": max_accuracy_loss,
        }
    )
    _check_range(low, high, tolerance, confidence)
    chosen = _settings(config, settings)
    maker = MaskMaker.of(method, chosen, recover, solver)
    if heldout is not None and evaluate is not None:
        raise ConfigError("heldout and evaluate both judge the models; leave one of them out")
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()) if run is None else run)
        folder = MakerFolder(path, MANIFEST)
        folder.check()
        plain = stack.enter_context(evaluation_mode(model))
        for density in (low, high):
            find_layers(plain, maker.at(density))  # each layer must have kept and pruned weights
        samples = read_samples(batches, MAX_SAMPLES)
        judge, samples, tested = _judge(plain, samples, loss, heldout, evaluate, chosen.seed)
        dense = judge.measure(plain)
        target.check_dense(dense)
        found = Search(
            plain, samples, loss, maker, judge, target, folder, confidence, certain, dense,
            callback, (rounded(low), rounded(high), tolerance), run is not None,
        )  # fmt: skip
        stack.enter_context(folder.opened(found.facts(tested)))
        return found.run()


def _check_range(low: float, high: float, tolerance: float, confidence: float) -> None:
    if not 0 < low < high < 1:
        raise ConfigError(
            f"the range of densities is {low:g} to {high:g}; it must be within (0, 1), and the "
            "first below the second"
        )
    if not 1e-3 <= tolerance <= 1:
        raise ConfigError(f"tolerance = {tolerance:g}: must be between 0.001 and 1")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence = {confidence:g}: must be at least 0.5 and below 1")


def _settings(config: PrunerConfig | None, settings: dict[str, Any]) -> PrunerConfig:
    given = ({} if config is None else config.model_dump(exclude_unset=True)) | settings
    if "density" in given:
        raise ConfigError(
            f"density = {given['density']}: the search chooses it; leave it out, and give the "
            "range as low and high"
        )
    return PrunerConfig.of(**given)


def _judge(
    model: nn.Module,
    samples: Samples,
    loss: Loss,
    heldout: Iterable[Any] | None,
    evaluate: Evaluate | Judge | None,
    seed: int,
) -> tuple[Judge, Samples, Samples | None]:
    """Return the judge, the samples for pruning, and those of the judge if they are known."""
    if isinstance(evaluate, Judge):
        return evaluate, samples, None
    if evaluate is not None:
        return by_function(evaluate), samples, None
    if heldout is not None:
        tested, about = read_samples(heldout, MAX_SAMPLES), "given as held out"
    else:
        samples, tested = held_out_split(samples, HELDOUT_SHARE, streams.samples(seed))
        about = "held out from the training samples"
    judge = by_samples(tested, loss, model, batch_size=BATCH, about=about)
    return judge, samples, tested


@dataclass
class Search:
    """A search in progress."""

    model: nn.Module
    samples: Samples
    loss: Loss
    maker: MaskMaker
    judge: Judge
    target: Target
    folder: MakerFolder
    confidence: float
    certain: bool
    dense: Measurement
    callback: Callable[[SearchProgress], object] | None
    range: tuple[float, float, float]
    """Lowest and highest density, and tolerance."""
    draw: bool = True
    """Whether the curve is written and drawn at the end."""
    points: list[Point] = field(default_factory=list)
    _norms: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        state = self.model.state_dict()
        self.state = {name: value.clone() for name, value in state.items()}
        self.positions = count_positions(
            self.model, self.samples[:1].to(next(self.model.parameters()).device)
        )
        self.macs = nonzero_macs(self.model, self.positions)
        sizes = {value.data_ptr(): value.nbytes for value in state.values()}
        self.size = sum(sizes.values())
        recovers = self.maker.recovery is not None
        self.teacher = copy.deepcopy(self.model) if recovers else None

    def facts(self, tested: Samples | None) -> dict[str, Any]:
        """Return the facts that must be equal for the runs to be of the same search."""
        digests = {
            "model": tensors_digest_of(self.state),
            "samples": tensors_digest_of([*tensors(self.samples.inputs), self.samples.targets]),
            "judge": self.judge.about,
        }
        if tested is not None:
            own = [*tensors(tested.inputs), tested.targets]
            digests["judge"] += f" {tensors_digest_of(own)}"
        return self.maker.settings | digests

    @property
    def judged(self) -> str:
        """The target and confidence, as recorded in points."""
        return f"{self.target.name} {self.target.limit!r} {self.confidence!r}"

    @property
    def curve(self) -> Curve:
        """The points so far."""
        recovery = self.maker.recovery
        words = self.maker.method + ("" if recovery is None else f", recovery {recovery.method}")
        return Curve(
            self.target, self.judge.about, self.confidence, words, self.dense.figures, self.size,
            self.macs, self.points,
        )  # fmt: skip

    def run(self) -> SearchResult:
        """Try densities until the search ends; the model gets the weights found."""
        low, high, tolerance = self.range
        try:
            self.points = [
                point if point.judged == self.judged else self._again(point)
                for point in read_points(self.folder.path)
            ]
            while True:
                met = {p.density: self._meets(p) for p in self.points if low <= p.density <= high}
                density = next_density(met, low, high, tolerance)
                if density is None:
                    break
                self._add(self._try(density))
            if not met[high]:
                self._unreachable(high)
            best = min(density for density, good in met.items() if good)
            state, masks = load_compressed(density_folder(self.folder.path, best) / MODEL)
            result = SearchResult.of(best, masks, self.curve)
            if self.draw:
                write_result(self.folder, result)
        except BaseException:
            self.model.load_state_dict(self.state)
            raise
        self.model.load_state_dict(state)
        return result

    def _meets(self, point: Point) -> bool:
        return point.verdict == "meets" if self.certain else point.met

    def _unreachable(self, high: float) -> None:
        """Write the curve, and refuse a target that the highest density misses.

        Raises
        ------
        TargetError
        """
        point = next(point for point in self.points if point.density == high)
        why = (
            f"no density reaches the target {self.target}{' with certainty' * self.certain}: at "
            f"{high:g}, the highest, {self.target.kind.words} is {self.curve.spell(point)}; choose "
            "a weaker target, a higher density (high), or another method or recovery"
        )
        if self.draw:
            write_answer(self.folder, self.curve, [why])
        raise TargetError(why)

    def _try(self, density: float) -> Point:
        """Prune to a density and judge the model."""
        number, runs = len(self.points) + 1, number_of_runs(*self.range)
        log.info("density %g, run %d of about %d", density, number, runs)
        self.model.load_state_dict(self.state)
        config = self.maker.at(density)
        near = self._neighbour(density)
        path = density_folder(self.folder.path, density)
        start = None if near is None or (path / MODEL).exists() else self._start(near, config)

        def after_pass(progress: Progress) -> None:
            self._tell(SearchProgress(density, number, runs, progress, None, self.curve))

        made = self.maker.make(
            config,
            self.model,
            as_batches(self.samples),
            self.loss,
            path,
            start=start,
            dense=self.teacher,
            callback=after_pass,
        )
        return self._judged(
            density,
            kept=made.density,
            size=made.size,
            seconds=made.seconds,
            start=near,
        )

    def _judged(self, density: float, **fields: Any) -> Point:
        """Measure the model, which has the weights of a density, and return its point."""
        measured = self.judge.measure(self.model)
        return Point.judged_by(
            self.target.judge(self.dense, measured, self.confidence),
            density=density,
            figures=measured.figures,
            macs=nonzero_macs(self.model, self.positions),
            judged=self.judged,
            **fields,
        )

    def _again(self, point: Point) -> Point:
        """Judge a point of an earlier call by the present target."""
        state, _ = load_compressed(density_folder(self.folder.path, point.density) / MODEL)
        self.model.load_state_dict(state)
        fields = {name: getattr(point, name) for name in ("kept", "size", "seconds", "start")}
        found = self._judged(point.density, **fields)
        write_point(self.folder.path, found)
        return found

    def _add(self, point: Point) -> None:
        write_point(self.folder.path, point)
        self.points = sorted([*self.points, point], key=lambda point: -point.density)
        curve, number, runs = self.curve, len(self.points), number_of_runs(*self.range)
        write_tables(self.folder, curve)
        words = self.target.kind.words
        log.info(
            "density %g: %s %s: %s", point.density, words, curve.spell(point), point.verdict
        )
        self._tell(SearchProgress(point.density, number, runs, None, point, curve))

    def _tell(self, progress: SearchProgress) -> None:
        if self.callback is not None:
            self.callback(progress)

    def _neighbour(self, density: float) -> float | None:
        """Return the nearest density tried, for a method that starts from masks."""
        if self.maker.method != ICBS or getattr(self.maker.config, "groups", None):
            return None
        tried = [point.density for point in self.points if point.density != density]
        return min(tried, key=lambda other: abs(math.log(other / density)), default=None)

    def _start(self, near: float, config: PrunerConfig) -> dict[str, Tensor]:
        """Return the masks of a neighbour at the density of ``config``."""
        _, masks = load_compressed(density_folder(self.folder.path, near) / MODEL)
        layers = find_layers(self.model, config)
        if self._norms is None:
            device = layers[0].dense.device
            few = self.samples[: config.samples_of(len(self.samples))]
            self._norms = input_norms(self.model, layers, pieces_of(few, None, device))
        return resize_masks(self.model, masks, config, self._norms)
