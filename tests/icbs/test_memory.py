"""Memory is stated, kept within, and refused before anything is touched."""

from __future__ import annotations

import copy
import gc
import logging
import weakref

import pytest
import torch
from torch import nn

from icbs import CausalLMLoss, ConfigError, MemoryLimitError, Pruner, PrunerConfig
from icbs.curvature.named import make_source
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.formatting import byte_size
from icbs.model.finding import find_layers
from icbs.run import memory
from icbs.run.context import RunContext
from icbs.run.memory import Plan, Survey, make_plan, survey
from tests.icbs.test_passes import Mixer, sequences

MEGA = 10**6


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("6GB", 6e9), ("500 MiB", 500 * 2**20), ("1.5g", 1.5e9), ("12", 12), ("3 kB", 3000)],
        *[(7, 7), (6e9, 6e9), ("6e9", 6e9), (" 1.5E+3 ", 1500)],
    ],
)
def test_sizes_are_read(text, size):
    found = PrunerConfig.of(max_memory=text).max_memory
    assert found == size
    assert type(found) is int  # which YAML and JSON can hold


@pytest.mark.parametrize("size", [1, 12, 3.21e6, 6e9, 2**40])
def test_sizes_are_read_as_they_are_written(size):
    assert PrunerConfig.of(max_memory=byte_size(size)).max_memory == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    "text", ["six", "6XB", "GB", "6IB", "1.2.3GB", "6GB a layer", "", 0, -1, "1e400", 1e400, [6]]
)
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="max_memory"):
        PrunerConfig.of(max_memory=text)


def test_sizes_are_spelt():
    assert [byte_size(x) for x in (12, 3.21e6, 6e9)] == ["12 B", "3.2 MB", "6.0 GB"]


def test_a_survey_counts_what_the_graph_keeps():
    """Of two linear layers: tanh's output, their own inputs and outputs, and the loss."""
    model = nn.Sequential(nn.Linear(100, 50, bias=False), nn.Tanh(), nn.Linear(50, 10, bias=False))
    layers = find_layers(model, PrunerConfig(density=0.5))
    one = Samples(torch.randn(1, 100), torch.zeros(1).long())
    found = survey(model, layers, Objective(nn.CrossEntropyLoss()), one)
    assert found.held == 4 * (100 + 50 + 50 + 10)
    at_least = 4 * (100 + 50)
    assert at_least <= found.activations <= 6 * at_least
    many = Samples(torch.randn(1000, 100), torch.zeros(1000).long())
    assert survey(model, layers, Objective(nn.CrossEntropyLoss()), many[:1]) == found


def test_a_survey_leaves_nothing_behind():
    """Tanh keeps its own output for the backward pass: a circle, if held as it is."""
    model = nn.Sequential(nn.Linear(100, 50), nn.Tanh(), nn.Linear(50, 10))
    layers = find_layers(model, PrunerConfig(density=0.5))
    seen: list[weakref.ref[torch.Tensor]] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(weakref.ref(output)))
    one = Samples(torch.randn(1, 100), torch.zeros(1).long())
    survey(model, layers, Objective(nn.CrossEntropyLoss()), one)
    gc.collect()
    assert seen
    assert all(reference() is None for reference in seen)


def test_weights_in_a_narrower_type_are_no_samples_own():
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    layers = find_layers(model, PrunerConfig(density=0.5))
    many = Samples(torch.randn(8, 300), torch.zeros(8).long())
    objective = Objective(nn.CrossEntropyLoss())
    wide = survey(model, layers, objective, many[:1])
    objective.precision = "bfloat16"
    narrow = survey(model, layers, objective, many[:1])
    assert narrow.activations <= wide.activations
    assert narrow.shared >= 2 * 300 * 10  # the second layer's cast, kept for its backward pass


def plan_of(limit: float, each: int = 0, **settings: object) -> Plan:
    layers = find_layers(nn.Sequential(nn.Linear(1000, 1000)), PrunerConfig(density=0.5))
    config = PrunerConfig.of(
        **{
            "gradient_samples": 16,
            "curvature_samples": 16,
            "curvature": "empirical",
            "block_size": 16,
            "max_memory": limit,
        }
        | settings
    )
    found = Survey(activations=10 * MEGA, held=5 * MEGA, sample=each)
    source = make_source(config)
    return make_plan(nn.Linear(1000, 1000), layers, found, config, source, pool=100, held_out=20)


def test_what_gives_way_when_memory_is_short():
    limits = [1000 * MEGA, 285 * MEGA, 120 * MEGA, 50 * MEGA]
    plans = [plan_of(limit) for limit in limits]
    assert [plan.batch_size for plan in plans] == [20, 6, 9, 2]
    assert [plan.remember for plan in plans] == [True, True, False, False]
    for plan, limit in zip(plans, limits, strict=True):
        assert plan.needed <= limit


def test_activations_are_remembered_only_while_they_are_worth_it(monkeypatch):
    assert plan_of(1000 * MEGA).remember
    monkeypatch.setattr(memory, "CACHE", 2 * 20 * 5 * MEGA - 1)
    assert not plan_of(1000 * MEGA).remember


def test_a_pass_has_the_samples_that_were_asked_for_as_far_as_there_are():
    assert plan_of(50 * MEGA).samples == 16
    assert plan_of(50 * MEGA, gradient_samples=64).samples == 64
    assert plan_of(50 * MEGA, curvature_samples=64).samples == 64
    assert plan_of(500 * MEGA, gradient_samples=1000).samples == 100


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"block columns": 3 * 4 * 16 * 16, "held for the curvature": 0}),
        ({"curvature": "monte-carlo"}, {"block columns": 3 * 4 * 16 * 16}),
        ({"curvature_samples": 64}, {"block columns": 3 * 4 * 64 * 16}),
        # Positions are not bounded by the samples of a pass.
        (
            {"sample": "token", "curvature_samples": 2048},
            {"block columns": 3 * 4 * 2048 * 16, "held for the curvature": 2048 * 2000 * 4},
        ),
        ({"curvature": "exact"}, {"block columns": 8 * 16**2, "held for the curvature": 0}),
        (
            {"curvature": "gram"},
            {"block columns": 8 * 16**2, "products of inputs": 4 * 1000**2},
        ),
        (
            {"curvature": "fisher+gram"},
            {"block columns": 3 * 4 * 16 * 16 + 8 * 16**2, "products of inputs": 4 * 1000**2},
        ),
    ],
)
def test_each_source_of_curvature_says_what_it_needs(settings, expected):
    parts = plan_of(1000 * MEGA, **settings).parts
    assert {purpose: parts.get(purpose, 0) for purpose in expected} == expected


def test_the_samples_themselves_count():
    assert plan_of(1000 * MEGA, 3 * MEGA).parts["samples of a pass"] == 48 * MEGA
    assert plan_of(1000 * MEGA, 3 * MEGA, gradient_samples=100).parts["samples of a pass"] == (
        300 * MEGA
    )
    one = Samples(torch.randn(1, 100), torch.zeros(1).long())
    model = nn.Sequential(nn.Linear(100, 10))
    layers = find_layers(model, PrunerConfig(density=0.5))
    assert survey(model, layers, Objective(nn.CrossEntropyLoss()), one).sample == 408


def test_what_chooses_on_the_way_holds_nothing():
    def held(**settings: object) -> int:
        return plan_of(1000 * MEGA, **settings).parts.get("held for the curvature", 0)

    assert held() == held(curvature="exact") == 0
    assert held(sample="token") == 16 * 2000 * 4
    assert held(sample="token", curvature_samples=2048) == 2048 * 2000 * 4
    # The only sample can't be spared for choosing.
    assert held(gradient_samples=1, curvature_samples=1) == 5 * MEGA


def test_what_is_too_little_is_refused_with_the_least_that_would_do():
    with pytest.raises(MemoryLimitError, match=r"about 33.0 MB .*\(10.0 MB for.*max_memory"):
        plan_of(20 * MEGA)


def language_model() -> tuple[nn.Module, list]:
    torch.manual_seed(0)
    samples = sequences(count=24, length=12)
    return Mixer(), [(samples.inputs, samples.targets)]


SETTINGS = {
    "density": 0.5,
    "passes": 3,
    "block_size": 16,
    "curvature": "empirical",
    "gradient_samples": 8,
    "curvature_samples": 8,
    "acceptance_samples": 6,
}


def tight(model: nn.Module, batches: list) -> int:
    """Bytes with which nothing can be held, and one sample run at a time."""
    config = PrunerConfig.of(**SETTINGS, max_memory=10**9)
    context = RunContext.prepare(copy.deepcopy(model), batches, CausalLMLoss(), config)
    parts = context.plan.parts
    spare = parts.get("held for the curvature", 0) + parts["held for the acceptance test"]
    size = context.plan.batch_size
    return context.plan.needed - spare - parts["activations"] * (size - 1) // size


def test_a_run_within_little_memory_says_so_and_improves(caplog):
    model, batches = language_model()
    limit = tight(model, batches)
    with caplog.at_level(logging.INFO, logger="icbs"):
        result = Pruner(**SETTINGS, max_memory=limit).prune(model, batches, CausalLMLoss())
    assert ", 8 samples a pass" in caplog.text
    assert f"of {byte_size(limit)}" in caplog.text
    assert result.density == 0.5
    assert result.loss < result.initial_loss


def test_refused_before_model_and_disk_are_touched(tmp_path):
    model, batches = language_model()
    before = copy.deepcopy(model.state_dict())
    limit = tight(model, batches) // 2
    run = tmp_path / "run"
    with pytest.raises(MemoryLimitError):
        Pruner(**SETTINGS, max_memory=limit).prune(model, batches, CausalLMLoss(), run=run)
    assert not run.exists()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_resumed_run_keeps_its_plan_whatever_is_free_then(tmp_path, monkeypatch):
    model, batches = language_model()
    limit = tight(model, batches)
    resident = 4 * sum(p.numel() for p in model.parameters()) + 4 * (6 * 8 + 8 * 11)

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(progress):  # type: ignore[no-untyped-def]
        if progress.step == 2:
            raise Stopped

    monkeypatch.setattr("icbs.run.memory.SPARE", 1.0)
    monkeypatch.setattr("icbs.run.memory.free_memory", lambda device: limit - resident)
    whole = Pruner(**SETTINGS).prune(copy.deepcopy(model), batches, CausalLMLoss())
    with pytest.raises(Stopped):
        Pruner(**SETTINGS).prune(
            copy.deepcopy(model), batches, CausalLMLoss(), run=tmp_path / "run", callback=stop
        )
    monkeypatch.setattr("icbs.run.memory.free_memory", lambda device: 10**9)
    found = Pruner.resume(tmp_path / "run", model, batches, CausalLMLoss())
    assert found.loss == whole.loss
    for name, mask in whole.masks.items():
        assert torch.equal(mask, found.masks[name])
