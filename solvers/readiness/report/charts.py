"""Charts of the page: gates, depth, success, chains and qubits against n, quality against p."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from solvers.comparison.report.figures import (
    Chart,
    draw_line,
    draw_points,
    mark_level,
    new_figure,
    size_range,
    tick_sizes,
)
from solvers.comparison.report.style import Style, styles
from solvers.readiness.assessment import Assessment
from solvers.readiness.device import DeviceCircuit, counted
from solvers.readiness.quality import ANGLES
from solvers.readiness.target import GateTarget, Target
from solvers.readiness.verdict import Family

#: Smallest probability that is drawn.
_FLOOR = 1e-12
#: Difference between charts and table of annealers.
_TABLE = "The table of verdicts has the embedding with fewer qubits, of a clique or by minorminer."
#: Sizes at which the gates of a family are counted, up to the qubits of a target.
_SIZES = (*range(4, 16, 2), *range(16, 32, 4), *range(32, 64, 8), *range(64, 257, 16))


@dataclass(frozen=True)
class Scene:
    """Assessments, and the look of each series."""

    assessments: Sequence[Assessment]
    targets: Sequence[Target]
    _drawn: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Look of each target, of logical circuits, and of both choices of angles."""
        names = [target.name for target in self.targets]
        return {style.name: style for style in styles([*names, LOGICAL, *ANGLES])}

    @property
    def p(self) -> int:
        """The fewest layers."""
        return min(row.p for row in self.assessments[0].logical)

    @cached_property
    def sizes(self) -> list[int]:
        """All n, ascending."""
        return sorted({assessment.problem.n for assessment in self.assessments})

    @cached_property
    def exemplar(self) -> Assessment:
        """A problem of one group, if there is one, of the median density of couplings."""
        alike = [one for one in self.assessments if one.problem.groups == 1] or self.assessments
        ordered = sorted(alike, key=lambda assessment: assessment.problem.density)
        return ordered[len(ordered) // 2]

    def shifted(self, n: int, name: str) -> float:
        """Return the place of a point at n, shifted a little so that series do not overlap."""
        middle = (len(self.styles) - 1) / 2
        return n * 1.02 ** (self.styles[name].index - middle)

    def family(self, target: GateTarget) -> list[DeviceCircuit]:
        """Count the gates of problems like :attr:`exemplar` of growing size on a target."""
        if target.name not in self._drawn:
            family, first = Family.of(self.exemplar.problem), self.exemplar.devices[0]
            rows = []
            for n in (size for size in _SIZES if size <= target.qubits):
                couplings, groups = family.member(n)
                empty = DeviceCircuit(target.name, self.p, first.start, first.mixer, n)
                rows.append(counted(empty, target, couplings, groups))
            self._drawn[target.name] = [row for row in rows if not row.skipped]
        found: list[DeviceCircuit] = self._drawn[target.name]
        return found


#: Name of circuits on qubits that are all coupled.
LOGICAL = "all coupled (logical)"


def draw(scene: Scene) -> list[Chart]:
    """Draw the charts of the page, in its order."""
    return [
        gates_chart(scene),
        depth_chart(scene),
        success_chart(scene),
        chain_chart(scene),
        qubits_chart(scene),
        quality_chart(scene),
    ]


def gates_chart(scene: Scene) -> Chart:
    """Draw gates on two qubits against n."""
    return _device_chart(
        scene,
        "gates",
        "Gates on two qubits",
        "two_qubit_gates",
        lambda row: row.total.two_qubit,
    )


def depth_chart(scene: Scene) -> Chart:
    """Draw the layers of gates on two qubits against n."""
    return _device_chart(
        scene,
        "depth",
        "Depth: layers of gates on two qubits",
        "two_qubit_depth",
        lambda row: row.total.two_qubit_depth,
    )


def success_chart(scene: Scene) -> Chart:
    """Draw the estimate of the success against n."""
    return _device_chart(
        scene,
        "success",
        "Share of shots without an error",
        "success",
        None,
        "The product of 1 − ε over all gates and readouts, with errors that are independent; "
        "hollow below 1e-12. Idle qubits lose more.",
    )


def chain_chart(scene: Scene) -> Chart:
    """Draw the longest chains of embeddings against n."""
    rows = _clique_rows(scene, "chain_max")
    return _size_chart(
        scene,
        "chain",
        "Longest chain of an annealer",
        "qubits of the longest chain",
        rows,
        "Clique embeddings, of complete graphs, which hold any couplings, with the target's share "
        f"of faulty qubits and couplers. {_TABLE}",
        "no problem was embedded in an annealer",
    )


def qubits_chart(scene: Scene) -> Chart:
    """Draw physical qubits against n, of annealers and of machines with error correction."""
    rows = _clique_rows(scene, "physical_qubits")
    rows += [
        (row.target, assessment, assessment.problem.n, row.physical_qubits)
        for assessment in scene.assessments
        for row in assessment.fault_tolerant
        if row.physical_qubits is not None and row.p == scene.p
    ]
    return _size_chart(
        scene,
        "physical-qubits",
        "Physical qubits",
        "physical qubits",
        rows,
        f"Annealers: all chains of clique embeddings, with faults. {_TABLE} Error correction: p = "
        f"{scene.p}, with the factories of T states.",
        "no annealer and no machine with error correction among the targets",
    )


def quality_chart(scene: Scene) -> Chart:
    """Draw the approximation ratio of simulated circuits against p."""
    title, key = "Quality of circuits without noise", "quality"
    rows = [
        (assessment.name, row)
        for assessment in scene.assessments
        for row in assessment.quality
        if row.ratio is not None
    ]
    if not rows:
        return Chart(key, title, "Not drawn: no problem is small enough to be simulated.")
    layers = sorted({row.p for _, row in rows})
    ratios = [row.ratio or 0.0 for _, row in rows]
    plot = new_figure(
        "layers p",
        "approximation ratio r",
        (min(layers) / 1.4, max(layers) * 1.4),
        (min(-0.05, min(ratios) - 0.05), 1.05),
        y_axis="linear",
        tooltips=[("problem", "@problem"), ("p", "@p"), ("r", "@ratio{0.000}")],
        series="angles",
    )
    tick_sizes(plot, layers)
    mark_level(plot, 0.0, "random feasible states")
    for number, angles in enumerate(ANGLES):
        style = scene.styles[angles]
        mine = [(name, row) for name, row in rows if row.angles == angles]
        if not mine:
            continue
        shift = 1.06 ** (2 * number - 1)
        points: dict[str, Any] = {
            "problem": [name for name, _ in mine],
            "n": [row.n for _, row in mine],
            "p": [row.p for _, row in mine],
            "ratio": [row.ratio for _, row in mine],
            "optimum_probability": [row.optimum_probability for _, row in mine],
            "sigmas": [row.sigmas for _, row in mine],
            "_x": [row.p * shift for _, row in mine],
            "_y": [row.ratio for _, row in mine],
            "_fill": [0.75 if row.above_random else 0.0 for _, row in mine],
        }
        draw_points(plot, style, points)
        medians = [np.median([r.ratio or 0.0 for _, r in mine if r.p == p]) for p in layers]
        draw_line(plot, style, [p * shift for p in layers], medians)
    return Chart(
        key,
        title,
        "r = (E_random − ⟨E⟩) / (E_random − E*): 0 for random feasible states, 1 at the optimum. "
        "Filled where the mean of as many shots is better than random by three standard errors. "
        "Lines: medians over problems.",
        plot,
    )


def _device_chart(
    scene: Scene,
    key: str,
    title: str,
    value: str,
    logical: Callable[[Any], int] | None,
    definition: str = "",
) -> Chart:
    """Draw a figure of circuits on processors against n, with the line of a family."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for assessment in scene.assessments:
        for row in assessment.devices:
            if row.p == scene.p and not row.skipped:
                entry = (assessment.name, row.qubits, getattr(row, value), row.method)
                found.setdefault(row.target, []).append(entry)
        if logical is not None:
            first = assessment.devices[0] if assessment.devices else None
            wanted = (first.start, first.mixer) if first else ("dicke", "ring")
            circuit = next(
                one
                for one in assessment.logical
                if one.p == scene.p and (one.start, one.mixer) == wanted
            )
            entry = (assessment.name, circuit.qubits, logical(circuit), "formula")
            found.setdefault(LOGICAL, []).append(entry)
    if not found:
        return Chart(key, title, "Not drawn: no problem fits a processor of the targets.")
    lines = {
        target.name: [(row.qubits, getattr(row, value)) for row in scene.family(target)]
        for target in scene.targets
        if isinstance(target, GateTarget)
    }
    sizes = sorted({entry[1] for rows in found.values() for entry in rows})
    sizes = sorted({*sizes, *(n for line in lines.values() for n, _ in line)})
    floor = _FLOOR if value == "success" else 1.0
    values = [entry[2] for rows in found.values() for entry in rows]
    values += [number for line in lines.values() for _, number in line]
    low = max(floor, min(values, default=1.0) / 2)
    plot = new_figure(
        "n",
        title[0].lower() + title[1:],
        size_range(sizes),
        (low, 2.0 if value == "success" else 2.0 * max(values, default=1.0)),
        tooltips=[("problem", "@problem"), ("n", "@n"), (key, "@value{0.[000]a}"), ("", "@method")],
        series="target",
    )
    tick_sizes(plot, sizes)
    for name, rows in found.items():
        style = scene.styles[name]
        numbers = np.array([row[2] for row in rows], dtype=float)
        draw_points(
            plot,
            style,
            {
                "problem": [row[0] for row in rows],
                "n": [row[1] for row in rows],
                "value": numbers,
                "method": [row[3] for row in rows],
                "_x": [scene.shifted(row[1], name) for row in rows],
                "_y": np.maximum(numbers, low),
                "_fill": np.where(numbers >= low, 0.75, 0.0),
            },
        )
    for name, line in lines.items():
        if line:
            shown = [(n, number) for n, number in line if number >= low]
            x, y = [n for n, _ in shown], [number for _, number in shown]
            draw_line(plot, scene.styles[name], x, y)
    family = (
        f"p = {scene.p}. Points: problems, compiled up to n = 32, else counted. Lines: gates "
        f"counted for problems like {scene.exemplar.name} of any n. {definition}"
    )
    return Chart(key, title, family, plot)


def _clique_rows(scene: Scene, value: str) -> list[tuple[str, Assessment, int, Any]]:
    """Return target, assessment, n and a figure of each clique embedded in a graph with faults."""
    return [
        (row.target, assessment, row.n, getattr(row, value))
        for assessment in scene.assessments
        for row in assessment.annealers
        if row.found and row.method == "clique" and row.faulty
    ]


def _size_chart(
    scene: Scene,
    key: str,
    title: str,
    axis: str,
    rows: Sequence[tuple[str, Assessment, int, Any]],
    definition: str,
    nothing: str,
) -> Chart:
    """Draw a figure of each target against n, with lines through the medians."""
    if not rows:
        return Chart(key, title, f"Not drawn: {nothing}.")
    values = [value for _, _, _, value in rows]
    plot = new_figure(
        "n",
        axis,
        size_range(sorted({n for _, _, n, _ in rows})),
        (max(0.5, min(values) / 2), 2.0 * max(values)),
        tooltips=[("problem", "@problem"), ("n", "@n"), (axis, "@value")],
        series="target",
    )
    tick_sizes(plot, sorted({n for _, _, n, _ in rows}))
    for name in dict.fromkeys(target for target, *_ in rows):
        mine = [
            (assessment.name, n, value) for target, assessment, n, value in rows if target == name
        ]
        points: dict[str, Any] = {
            "problem": [row[0] for row in mine],
            "n": [row[1] for row in mine],
            "value": [row[2] for row in mine],
            "_x": [scene.shifted(row[1], name) for row in mine],
            "_y": [row[2] for row in mine],
            "_fill": [0.75] * len(mine),
        }
        draw_points(plot, scene.styles[name], points)
        sizes = sorted({n for _, n, _ in mine})
        medians = [np.median([value for _, own, value in mine if own == n]) for n in sizes]
        draw_line(plot, scene.styles[name], [scene.shifted(n, name) for n in sizes], medians)
    return Chart(key, title, definition, plot)
