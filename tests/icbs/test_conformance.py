"""Curvature sources, scores, acceptance rules and kinds of layers keep their promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icbs import ConfigError
from icbs.acceptance.per_block import PerBlock
from icbs.curvature.fisher import Fisher
from icbs.curvature.sum import Sum
from icbs.model.kinds import Convolution, Kind, Linear, Transposed
from icbs.plugins import ACCEPTANCES, CURVATURES, KINDS, SCORES
from icbs.testing import check_acceptance, check_curvature, check_kind, check_score


@pytest.mark.parametrize("name", CURVATURES.builtin)
def test_curvature_sources(name: str) -> None:
    check_curvature(CURVATURES.get(name))


def test_a_sum_of_sources_is_a_source() -> None:
    check_curvature(lambda settings: Sum(Fisher(20, drawn=False), Fisher(10)))
    check_curvature(lambda settings: Fisher(15, tokens=True))


@pytest.mark.parametrize("name", [name for name in SCORES.builtin if name != "trajectory"])
def test_scores(name: str) -> None:
    check_score(SCORES.get(name))


@pytest.mark.parametrize("name", ACCEPTANCES.builtin)
def test_acceptance_rules(name: str) -> None:
    check_acceptance(ACCEPTANCES.get(name))


def conv1d(out: int, width: int) -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(out, width)


@pytest.mark.parametrize(
    ("kind", "module", "shape"),
    [
        (Linear, lambda: nn.Linear(4, 3), (5, 4)),
        (Linear, lambda: nn.Linear(4, 3, bias=False), (5, 2, 4)),
        (Convolution, lambda: nn.Conv2d(2, 4, 3, padding=1), (3, 2, 5, 5)),
        (Convolution, lambda: nn.Conv2d(4, 6, (2, 3), groups=2, stride=2), (2, 4, 6, 5)),
        (Transposed, lambda: conv1d(3, 4), (5, 2, 4)),
    ],
)
def test_kinds(kind: type[Kind], module: Any, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    check_kind(kind, module(), torch.randn(shape, generator=generator))


class Wrong(Fisher):
    """Scales its columns by the number of the call: no two passes agree."""

    calls = 0

    def collectors(self, batch):  # type: ignore[no-untyped-def]
        found = super().collectors(batch)
        Wrong.calls += 1
        number = Wrong.calls
        model = found[0].model

        def scaled(gates):  # type: ignore[no-untyped-def]
            made = model(gates)
            made.factor = made.factor * number
            return made

        found[0].model = scaled
        return found


class Hoarder(PerBlock):
    """Keeps moves in place when it is interrupted."""

    def decide(self, context, state, moves):  # type: ignore[no-untyped-def]
        for move in moves:
            move.apply()
        context.holdout.measure()
        return [move.row(state, 0.0, accepted=move.size > 0) for move in moves]


class Shifted(Linear):
    """Names the weights of the next row."""

    def at(self, rows, columns):  # type: ignore[no-untyped-def]
        return (rows + 1) % len(self.weight), columns


def test_broken_parts_are_found() -> None:
    with pytest.raises(AssertionError, match="two equal passes"):
        check_curvature(lambda settings: Wrong(20))
    with pytest.raises(AssertionError, match="returned dict"):
        check_curvature(lambda settings: {})  # type: ignore[arg-type,return-value]
    with pytest.raises(AssertionError, match="measured|interruption"):
        check_acceptance(Hoarder)
    with pytest.raises(AssertionError, match="at\\(\\) names other weights"):
        check_kind(Shifted, nn.Linear(4, 3), torch.randn(5, 4))
    with pytest.raises(AssertionError, match="different scores"):
        check_score(lambda layer, pass_info, generator: torch.rand(layer.shape))


SOURCE = '''
"""A curvature source in 30 lines: the diagonal of the empirical Fisher."""

import torch

from icbs.curvature.source import Collector, CurvatureSource, QuadraticModel


class Diagonal(CurvatureSource):
    """Second moments of the gradients of single weights; couplings are left out."""

    uses_rows = True

    def collectors(self, batch):
        return [Squares(len(batch))]


class Squares(Collector):
    """Sums of squared gradients over all samples of a pass."""

    def __init__(self, count):
        self.count, self.sums = count, {}

    def span(self):
        return 0, self.count

    def add(self, layer, call):
        rows = torch.arange(layer.shape[0]).repeat_interleave(layer.shape[1])
        columns = torch.arange(layer.shape[1]).repeat(layer.shape[0])
        squares = call.columns(rows, columns).square().sum(dim=0)
        self.sums[layer.name] = self.sums.get(layer.name, 0) + squares

    def model(self, gates):
        values = [self.sums[p.layer.name][p.index] * p.weights**2 / self.count for p in gates.parts]
        return QuadraticModel(matrix=torch.diag(torch.from_numpy(gates.total(values))))


def make(settings):
    return Diagonal()
'''


def test_a_source_from_outside_is_found_by_name(tmp_path: Path) -> None:
    """Another distribution's entry point, in a process of its own."""
    (tmp_path / "outside.py").write_text(SOURCE)
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[icbs.curvature]\ndiagonal = outside:make\n")
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from icbs import Pruner
from icbs.plugins import CURVATURES
from icbs.testing import toy
samples = toy.make_samples()
result = Pruner(density=0.3, curvature="diagonal", passes=4, block_size=12).prune(
    toy.make_model(), [(samples.inputs, samples.targets)], toy.LOSS, progress=False
)
assert "diagonal" in CURVATURES.names()
assert any(row.accepted for row in result.history), result
assert result.loss < result.initial_loss
print(result.density)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_parts_are_registered_by_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ACCEPTANCES, "_registered", {})

    class Keeper(PerBlock):
        pass

    ACCEPTANCES.register("keeper", Keeper)
    assert ACCEPTANCES.get("keeper") is Keeper
    assert "keeper" in ACCEPTANCES.names()
    with pytest.raises(ConfigError, match="built in"):
        ACCEPTANCES.register("block", Keeper)
    with pytest.raises(ConfigError, match="unknown curvature 'emprical'.*empirical"):
        CURVATURES.get("emprical")
    assert KINDS.get("linear") is Linear
