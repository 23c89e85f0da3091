"""``icbs layers --groups`` lists groups with their sizes, and what is left whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from icbs.cli import app
from icbs.cli.layer_groups import group_rows, summed
from icbs.config import PrunerConfig
from icbs.data.pytree import tree_map
from icbs.structure import cut, find_dimensions
from icbs.structure.counts import count
from icbs.zoo import Task
from tests.icbs import structured_models
from tests.icbs.structured_models import Shared


def load_shared() -> Task:
    """Return a task with a layer that is called twice."""
    inputs, targets = torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)
    return Task("shared", Shared(), [(inputs, targets)], nn.CrossEntropyLoss(), lambda model: {})


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("llama", "heads,neurons"), ("bert", "heads,neurons"), ("residual", "channels")],
)
def test_a_group_saves_as_much_as_its_removal(name: str, kinds: str) -> None:
    model, inputs = structured_models.make(name)
    single = tree_map(lambda t: t[:1], inputs)
    rows, _ = group_rows(model, single, PrunerConfig.of(groups=kinds, density=0.5))
    dimensions = find_dimensions(model, single, kinds.split(","))
    assert [row.name for row in rows] == [one.name for one in dimensions]
    before = count(model, single)
    for row, dimension in zip(rows, dimensions, strict=True):
        assert row.groups == dimension.groups
        kept = {dimension.name: torch.arange(dimension.groups) > 0}
        after = count(cut(model, [dimension], kept), single)
        assert before.parameters - after.parameters == pytest.approx(row.parameters)
        assert before.macs - after.macs == pytest.approx(row.macs)


def test_layers_of_equal_sizes_are_summed() -> None:
    model, _ = structured_models.make("bert")
    rows, _ = group_rows(model, None, PrunerConfig.of(groups="heads,neurons", density=0.5))
    both = summed(rows)
    assert len(both) == 2
    assert sum(row.dimensions for row in both) == len(rows)
    assert "bert.encoder.layer.*.intermediate.dense neurons" in {row.name for row in both}


def test_what_is_left_whole_is_listed_with_the_reason() -> None:
    found = CliRunner().invoke(
        app, ["layers", f"{__name__}:load_shared", "--groups", "neurons"], terminal_width=200
    )
    assert found.exit_code == 0, found.output
    assert "once neurons" in found.output
    assert "7 groups" in found.output
    assert "outputs of twice: twice is called 2 times" in found.output


def test_a_model_without_such_groups_is_refused() -> None:
    found = CliRunner().invoke(app, ["layers", f"{__name__}:load_shared", "--groups", "heads"])
    assert found.exit_code == 2
    assert "no heads that can be cut" in str(found.output)


def test_groups_within_layers_are_listed() -> None:
    model, inputs = structured_models.make("residual")
    single = tree_map(lambda t: t[:1], inputs)
    rows, left = group_rows(model, single, PrunerConfig.of(groups="kernels", density=0.5))
    by_name = {row.name: row for row in rows}
    assert not left
    assert by_name["depthwise"].groups == 12
    assert by_name["depthwise"].parameters == 9
