"""The runs of a density search, and the points of its curve."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.objective import Loss
from icbs.data.pytree import tensors
from icbs.data.samples import Samples
from icbs.density.bisection import next_density, number_of_runs
from icbs.density.costs import count_positions, nonzero_macs
from icbs.density.folder import (
    ANSWER,
    MakerFolder,
    density_folder,
    read_points,
    tensors_digest_of,
    write_point,
)
from icbs.density.judge import Judge, Measurement, as_batches
from icbs.density.mask_maker import ICBS, MODEL, MaskMaker
from icbs.density.resize import resize_groups, resize_masks, sampled_norms
from icbs.density.result import Curve, Point, SearchResult
from icbs.density.table import write_answer, write_result, write_tables
from icbs.density.target import Target
from icbs.errors import TargetError
from icbs.export.compressed import load_compressed
from icbs.run.result import Progress

log = logging.getLogger("icbs")


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
    about: Mapping[str, Any] | None = None
    """Notes for the manifests of the runs."""
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
            self.macs, self.points, self.maker.share_of,
        )  # fmt: skip

    def run(self) -> SearchResult:
        """Try densities until the search ends; the model gets the weights found."""
        low, high, tolerance = self.range
        try:
            if self.draw:  # that of an earlier call may be of another target or range
                self.folder.remove(ANSWER)
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
            result = SearchResult.of(best, masks, self.curve, low)
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
            about=self.about,
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
        log.info("density %g: %s %s: %s", point.density, words, curve.spell(point), point.verdict)
        self._tell(SearchProgress(point.density, number, runs, None, point, curve))

    def _tell(self, progress: SearchProgress) -> None:
        if self.callback is not None:
            self.callback(progress)

    def _neighbour(self, density: float) -> float | None:
        """Return the nearest density tried, for a method that starts from masks."""
        if self.maker.method != ICBS:
            return None
        tried = [point.density for point in self.points if point.density != density]
        return min(tried, key=lambda other: abs(math.log(other / density)), default=None)

    def _start(self, near: float, config: PrunerConfig) -> dict[str, Tensor]:
        """Return the masks of a neighbour at the density of ``config``."""
        _, masks = load_compressed(density_folder(self.folder.path, near) / MODEL)
        if config.groups is not None:
            return resize_groups(self.model, masks, config, self.samples)
        if self._norms is None:
            self._norms = sampled_norms(self.model, config, self.samples)
        return resize_masks(self.model, masks, config, self._norms)
