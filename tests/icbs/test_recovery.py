"""Recovery of any masks: they hold exactly, and the held-out loss never rises."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from icbs import (
    CausalLMLoss,
    ConfigError,
    DataError,
    DensityWarning,
    LayerError,
    MemoryLimitError,
    Pruner,
    RecoveryConfig,
    RecoveryResult,
    RunFolderError,
    apply_masks,
    recover,
)
from icbs.config.groups import Group
from icbs.layerwise import prune_layerwise
from icbs.plugins import RECOVERIES
from icbs.recovery.method import Method, Step
from icbs.recovery.result import StepRecord
from icbs.recovery.subject import Subject, movable, twin
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.test_batch_statistics import convolutional, images, random_masks
from tests.icbs.test_layerwise import decoder, texts


def toy_masks(toy: Toy, share: float, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(module.weight.shape, generator=generator) < share
        for name, module in toy.model.named_modules()
        if isinstance(module, nn.Linear)
    }


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@settings(max_examples=12)
@given(
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 100),
    method=st.sampled_from(["least-squares", "auto"]),
)
def test_masks_hold_and_the_heldout_loss_never_rises(share, seed, method):
    toy = make_toy()
    masks = toy_masks(toy, share, seed)
    result = recover(
        toy.model, masks, toy.batches, toy.loss, method=method, seed=seed, progress=False
    )
    assert result.loss <= result.initial_loss
    kept = 0
    for name, mask in masks.items():
        assert torch.equal(result.masks[name], mask)
        assert not toy.model.get_submodule(name).weight[~mask].any()
        kept += int(mask.sum())
    assert result.density == kept / sum(mask.numel() for mask in masks.values())
    best = min([result.initial_loss, *(row.heldout_loss for row in result.history)])
    assert result.loss == best


@pytest.mark.parametrize("source", ["magnitude", "wanda", "sparsegpt", "icbs"])
def test_masks_of_any_method_are_recovered(source):
    """With the pruned model too, whose weights SparseGPT has changed."""
    toy, dense = make_toy(), make_toy()
    if source == "icbs":
        pruner = Pruner(density=0.3, block_size=32, passes=3, gradient_samples=200)
        masks = pruner.prune(toy.model, toy.batches, toy.loss, progress=False).masks
    else:
        masks = prune_layerwise(toy.model, toy.batches, source, density=0.3).masks
    with torch.no_grad():
        before = float(toy.loss(toy.model(toy.samples[0]), toy.samples[1]))
    result = recover(
        toy.model, masks, toy.batches, toy.loss, dense=dense.model, method="least-squares"
    )
    assert result.loss < result.initial_loss
    assert result.dense_loss < result.loss
    with torch.no_grad():
        assert float(toy.loss(toy.model(toy.samples[0]), toy.samples[1])) < before
    assert equal(state_of(dense.model), state_of(make_toy().model)), "the dense model has changed"
    assert "held-out loss" in str(result)


def test_a_pruned_and_a_dense_model_give_the_same_result():
    one, other, dense = make_toy(), make_toy(), make_toy()
    masks = toy_masks(one, 0.4)
    apply_masks(other.model, masks)
    first = recover(one.model, masks, one.batches, one.loss, method="least-squares")
    second = recover(
        other.model, masks, other.batches, other.loss, method="least-squares", dense=dense.model
    )
    assert first.loss == second.loss
    assert equal(state_of(one.model), state_of(other.model))


def test_given_heldout_samples_decide(toy):
    masks = toy_masks(toy, 0.4)
    x, y = toy.samples
    result = recover(
        toy.model, masks, [(x[:300], y[:300])], toy.loss, heldout=[(x[300:], y[300:])],
        method="least-squares",
    )  # fmt: skip
    with torch.no_grad():
        loss = float(toy.loss(toy.model(x[300:]), y[300:]))
    assert result.loss == pytest.approx(loss, rel=1e-5)


def test_without_a_loss_the_dense_outputs_are_the_targets(toy64):
    dense = copy.deepcopy(toy64.model)
    masks = toy_masks(toy64, 0.4)
    x, y = toy64.samples
    result = recover(
        toy64.model, masks, [(x[:300], y[:300])], heldout=[(x[300:], y[300:])],
        method="least-squares",
    )  # fmt: skip
    with torch.no_grad():
        error = float(nn.functional.mse_loss(toy64.model(x[300:]), dense(x[300:])))
    assert result.loss == pytest.approx(error)
    assert result.dense_loss == 0
    assert result.loss < result.initial_loss


def test_a_copy_shares_what_does_not_move():
    model = decoder()
    masks = prune_layerwise(decoder(), texts(), "magnitude", density=0.5).masks
    config = RecoveryConfig.of(method="least-squares")
    subject = Subject.prepare(model, masks, texts(), CausalLMLoss(), config)
    assert subject.dense is not None
    assert subject.dense.get_submodule("embed").weight is model.embed.weight
    assert subject.dense.get_submodule("stem").weight is not model.stem.weight
    moved = {tensor.data_ptr() for tensor in movable(model, subject.layers).values()}
    copied = {tensor.data_ptr() for tensor in movable(subject.dense, subject.dense_layers).values()}
    assert not moved & copied
    assert equal(state_of(twin(model, subject.layers)), state_of(model))


# Methods that do harm, and interruptions


class Harmful(Method):
    """``harmful``: helps first, then does harm."""

    name = "harmful"

    def steps(self, subject: Subject) -> Iterator[Step]:
        for number in range(self.done, 4):
            for layer in subject.free_layers():
                factor = 1.1 if number == 0 else -3.0
                subject.set_weight(layer, factor * layer.weight)
            yield Step(f"step {number}", number + 1, 4, judged=number != 2)


class NotFinite(Method):
    """``not-finite``: ends in NaN."""

    name = "not-finite"

    def steps(self, subject: Subject) -> Iterator[Step]:
        for number in range(self.done, 3):
            subject.set_weight(subject.layers[0], float("nan") * subject.layers[0].weight)
            yield Step(f"step {number}", number + 1, 3)


class NoisySettings(Group):
    """Settings of ``noisy``."""

    scale: float = 0.02


class Noisy(Method):
    """``noisy``: random steps, with state of its own."""

    name = "noisy"
    Settings = NoisySettings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.drift = torch.zeros(1, dtype=torch.float64)

    def steps(self, subject: Subject) -> Iterator[Step]:
        for number in range(self.done, 6):
            generator = subject.generator(number)
            for layer in subject.free_layers():
                noise = torch.randn(layer.shape, generator=generator).to(layer.weight)
                self.drift += noise.double().sum()
                matrix = layer.weight * (1 + self.settings.scale * noise)
                subject.set_weight(layer, matrix + 1e-4 * self.drift.to(noise))
            yield Step(f"step {number}", number + 1, 6, calibration_error=float(self.drift))

    def state(self) -> dict[str, Tensor]:
        return {"drift": self.drift}

    def restore(self, tensors: Any) -> None:
        self.drift = tensors["drift"]


@pytest.fixture
def registered(monkeypatch):
    kinds = {kind.name: kind for kind in (Harmful, NotFinite, Noisy)}
    monkeypatch.setattr(RECOVERIES, "_registered", kinds)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("method", ["harmful", "not-finite", "auto"])
def test_the_best_state_is_restored(method):
    toy = make_toy()
    masks = toy_masks(toy, 0.4)
    result = recover(toy.model, masks, toy.batches, toy.loss, method=method)
    judged = [row for row in result.history if row.best]
    assert result.loss == min([result.initial_loss, *(row.heldout_loss for row in judged)])
    if method == "not-finite":
        assert result.method == "none"
        assert len(result.history) == 1
        assert equal(
            {n: w for n, w in state_of(toy.model).items() if n.endswith("weight")},
            {f"{n}.weight": make_toy().model.get_submodule(n).weight * m for n, m in masks.items()},
        )
    for name, mask in masks.items():
        weight = toy.model.get_submodule(name).weight
        assert torch.isfinite(weight).all()
        assert not weight[~mask].any()


def rows(history: list[StepRecord]) -> list[Any]:
    def plain(value: Any) -> Any:
        return "nan" if value != value else value

    names = [f.name for f in dataclasses.fields(StepRecord) if f.name != "seconds"]
    return [tuple(plain(getattr(row, name)) for name in names) for row in history]


class InterruptionError(Exception):
    pass


def cases(name: str) -> tuple[nn.Module, dict[str, Tensor], Any, Any]:
    if name == "perceptron":
        toy = make_toy()
        return toy.model, toy_masks(toy, 0.4), toy.batches, toy.loss
    if name == "convolutional":
        model = convolutional()
        return model, random_masks(model, 0.6), images(), nn.CrossEntropyLoss()
    masks = prune_layerwise(decoder(), texts(), "wanda", density=0.6).masks
    return decoder(), masks, texts(), CausalLMLoss()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("perceptron", "noisy"),
        ("perceptron", "auto"),
        ("convolutional", "least-squares"),
        ("decoder", "least-squares"),
        ("decoder", "blocks"),
        ("convolutional", "blocks"),
    ],
)
def test_an_interrupted_recovery_is_continued_to_the_same_bits(name, method, after, tmp_path):
    model, masks, batches, loss = cases(name)
    whole = recover(model, masks, batches, loss, method=method)
    expected = state_of(model)
    count = 0

    def interrupt(progress: Any) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise InterruptionError

    arguments = {"method": method, "run": tmp_path / "recovery", "checkpoint_every": 0}
    model, masks, batches, loss = cases(name)
    stopped = True
    try:
        recover(model, masks, batches, loss, callback=interrupt, **arguments)
        stopped = False
    except InterruptionError:
        pass
    assert stopped == (after <= len([r for r in whole.history if r.step]))
    model, masks, batches, loss = cases(name)
    result = recover(model, masks, batches, loss, **arguments)
    assert rows(result.history) == rows(whole.history)
    assert (result.loss, result.calibration_loss) == (whole.loss, whole.calibration_loss)
    assert equal(state_of(model), expected)
    # A finished one is not repeated.
    model, masks, batches, loss = cases(name)
    again = recover(model, masks, batches, loss, **arguments)
    assert rows(again.history) == rows(whole.history)
    assert equal(state_of(model), expected)


@pytest.mark.usefixtures("registered")
def test_a_callback_or_the_time_limit_ends_a_recovery_that_can_be_continued(tmp_path):
    model, masks, batches, loss = cases("perceptron")
    whole = recover(model, masks, batches, loss, method="noisy")
    expected = state_of(model)
    model, masks, batches, loss = cases("perceptron")
    run = tmp_path / "recovery"
    part = recover(
        model, masks, batches, loss, method="noisy", run=run, callback=lambda p: p.done == 2
    )
    assert len(part.history) == 2
    assert part.loss <= part.initial_loss
    model, masks, batches, loss = cases("perceptron")
    part = recover(model, masks, batches, loss, method="noisy", run=run, time_limit=1e-9)
    assert len(part.history) == 2
    model, masks, batches, loss = cases("perceptron")
    result = recover(model, masks, batches, loss, method="noisy", run=run)
    assert rows(result.history) == rows(whole.history)
    assert equal(state_of(model), expected)


def test_a_time_limit_before_the_first_step_leaves_no_trace_when_continued(tmp_path):
    """The statistics are corrected, and a row for that is written, once."""
    model, masks, batches, loss = cases("convolutional")
    whole = recover(model, masks, batches, loss, method="least-squares")
    expected = state_of(model)
    for time_limit in (1e-9, 1e-9, None):
        model, masks, batches, loss = cases("convolutional")
        result = recover(
            *(model, masks, batches, loss),
            method="least-squares",
            run=tmp_path / "recovery",
            time_limit=time_limit,
        )
    assert rows(result.history) == rows(whole.history)
    assert equal(state_of(model), expected)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "least-squares"},
        {"method": "global", "steps": 2},
        {"method": "blocks"},
        {"method": "distill", "epochs": 2},
        {"method": "distill", "epochs": 2, "parameters": "low-rank"},
        {"method": "distill", "epochs": 2, "parameters": "vectors"},
    ],
    ids=lambda method: "-".join(map(str, method.values())),
)
def test_every_method_starts_after_a_time_limit_before_its_first_step(method, tmp_path):
    name = "decoder" if method["method"] == "blocks" else "convolutional"
    model, masks, batches, loss = cases(name)
    whole = recover(model, masks, batches, loss, **method)
    expected = state_of(model)
    for time_limit in (1e-9, None):
        model, masks, batches, loss = cases(name)
        given = {"run": tmp_path / "recovery", "time_limit": time_limit} | method
        result = recover(model, masks, batches, loss, **given)
    assert rows(result.history) == rows(whole.history)
    assert equal(state_of(model), expected)


@pytest.mark.parametrize("finished", [False, True])
def test_a_recovery_does_not_continue_with_another_loss_or_dense_model(finished, tmp_path):
    model, masks, batches, loss = cases("perceptron")
    dense = copy.deepcopy(model)
    run, given = tmp_path / "recovery", {"method": "distill", "epochs": 3, "target": "data"}
    stop = None if finished else lambda progress: progress.done == 1
    recover(model, masks, batches, loss, dense=dense, run=run, callback=stop, **given)
    other_loss = nn.CrossEntropyLoss(label_smoothing=0.3)
    other_dense = copy.deepcopy(dense)
    with torch.no_grad():
        other_dense[0].bias += 5
    for changed_loss, changed_dense in ((other_loss, dense), (loss, other_dense)):
        fresh = copy.deepcopy(dense)
        before = state_of(fresh)
        with pytest.raises(RunFolderError, match="continue with the same loss"):
            recover(fresh, masks, batches, changed_loss, dense=changed_dense, run=run, **given)
        assert equal(state_of(fresh), before)
    fresh = copy.deepcopy(dense)
    result = recover(fresh, masks, batches, loss, dense=dense, run=run, **given)
    assert len(result.history) == 3


def test_a_recovery_that_ends_early_measures_its_last_state(tmp_path):
    """The steps of least squares are not all measured; a continued recovery is not affected."""
    model = deep()
    masks = toy_masks(Toy(model, [], nn.MSELoss()), 0.6)
    x = torch.randn(300, 10, generator=torch.Generator().manual_seed(3))
    whole = recover(deep(), masks, [(x, x)], method="least-squares")
    unmeasured = [row.step for row in whole.history if row.heldout_loss != row.heldout_loss]
    assert unmeasured
    assert whole.history[-1].heldout_loss == whole.history[-1].heldout_loss
    run = tmp_path / "recovery"
    part = recover(
        model, masks, [(x, x)], method="least-squares", run=run,
        callback=lambda p: p.done == unmeasured[-1],
    )  # fmt: skip
    assert part.history[-1].heldout_loss == part.history[-1].heldout_loss
    model = deep()
    result = recover(model, masks, [(x, x)], method="least-squares", run=run)
    assert rows(result.history) == rows(whole.history)
    assert result.loss == whole.loss


def deep() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = [part for _ in range(12) for part in (nn.Linear(10, 10), nn.Tanh())]
        return nn.Sequential(*parts)


def test_an_exception_leaves_the_best_state():
    toy = make_toy()
    masks = toy_masks(toy, 0.3)
    losses = []

    def fail(progress: Any) -> None:
        losses.append(progress.best_loss)
        if progress.done == 2:
            raise InterruptionError

    x, y = toy.samples
    with pytest.raises(InterruptionError):
        recover(
            toy.model, masks, [(x[:400], y[:400])], toy.loss, heldout=[(x[400:], y[400:])],
            method="least-squares", callback=fail,
        )  # fmt: skip
    with torch.no_grad():
        assert float(toy.loss(toy.model(x[400:]), y[400:])) == pytest.approx(losses[-1], rel=1e-5)


# Bad input


def nan_targets(toy: Toy) -> dict[str, Any]:
    x, y = toy.samples
    targets = nn.functional.one_hot(y, 4).float()
    targets[5, 2] = float("nan")
    return {"batches": [(x, targets)], "loss": nn.MSELoss()}


def of_other_model(toy: Toy) -> dict[str, Any]:
    return {"masks": {"7": torch.ones(3, 3, dtype=torch.bool)}}


def of_other_shape(toy: Toy) -> dict[str, Any]:
    return {"masks": toy_masks(toy, 0.5) | {"0": torch.ones(20, 13, dtype=torch.bool)}}


def of_other_density(toy: Toy) -> dict[str, Any]:
    apply_masks(toy.model, toy_masks(toy, 0.1))
    return {"masks": toy_masks(toy, 0.9, seed=1)}


def changed_where_pruned(toy: Toy) -> dict[str, Any]:
    dense = copy.deepcopy(toy.model)
    masks = toy_masks(toy, 0.5)
    apply_masks(toy.model, masks)
    with torch.no_grad():
        toy.model[0].weight += 0.1
    return {"masks": masks, "dense": dense}


def changed_in_one_layer(toy: Toy) -> dict[str, Any]:
    masks = toy_masks(toy, 0.5)
    apply_masks(toy.model, masks)
    with torch.no_grad():
        toy.model[0].weight += 0.1
    return {"masks": masks}


def changed_in_each_layer(toy: Toy) -> dict[str, Any]:
    """One pruned weight of each layer: the model is far from dense."""
    masks = toy_masks(toy, 0.2)
    apply_masks(toy.model, masks)
    with torch.no_grad():
        for name, mask in masks.items():
            first = tuple(int(i) for i in (~mask).nonzero()[0])
            toy.model.get_submodule(name).weight[first] = 1e-8
    return {"masks": masks}


def of_lower_density(toy: Toy) -> dict[str, Any]:
    """The model is pruned less than its masks say, and must not be taken for the dense one."""
    narrower = magnitude(toy, 0.1)
    apply_masks(toy.model, magnitude(toy, 0.2))
    return {"masks": narrower}


def of_higher_density(toy: Toy) -> dict[str, Any]:
    wider = magnitude(toy, 0.35)
    apply_masks(toy.model, magnitude(toy, 0.2))
    return {"masks": wider}


def of_higher_density_with_dense(toy: Toy) -> dict[str, Any]:
    return {"dense": copy.deepcopy(toy.model)} | of_higher_density(toy)


def of_another_method(toy: Toy) -> dict[str, Any]:
    dense = copy.deepcopy(toy.model)
    other = prune_layerwise(toy.model, toy.batches, "wanda", density=0.2).masks
    toy.model.load_state_dict(dense.state_dict())
    apply_masks(toy.model, magnitude(toy, 0.2))
    return {"masks": other, "dense": dense}


def magnitude(toy: Toy, density: float) -> dict[str, Tensor]:
    copied = copy.deepcopy(toy.model)
    return prune_layerwise(copied, toy.batches, "magnitude", density=density).masks


def pruned_without_dense(toy: Toy) -> dict[str, Any]:
    masks = toy_masks(toy, 0.5)
    apply_masks(toy.model, masks)
    return {"masks": masks}


def dense_is_the_model(toy: Toy) -> dict[str, Any]:
    return {"dense": toy.model}


def dense_of_other_shape(toy: Toy) -> dict[str, Any]:
    return {"dense": nn.Sequential(nn.Linear(12, 21), nn.ReLU(), nn.Linear(21, 16))}


def frozen(toy: Toy) -> dict[str, Any]:
    toy.model.requires_grad_(False)
    return {}


def tied(toy: Toy) -> dict[str, Any]:
    toy.model.append(nn.Linear(4, 16))
    toy.model.append(nn.Linear(16, 4))
    toy.model[6].weight = toy.model[4].weight
    return {}


def quantised(toy: Toy) -> dict[str, Any]:
    toy.model[2] = torch.ao.nn.quantized.dynamic.Linear(20, 16)
    return {}


def computed(toy: Toy) -> dict[str, Any]:
    nn.utils.parametrizations.weight_norm(toy.model[2])
    return {}


def one_sample(toy: Toy) -> dict[str, Any]:
    return {"batches": [(toy.samples[0][:1], toy.samples[1][:1])]}


def not_finite(toy: Toy) -> dict[str, Any]:
    with torch.no_grad():
        toy.model[2].weight[0, 0] = float("nan")
    return {}


BAD = [
    (nan_targets, DataError, "sample 5 has NaN"),
    (of_other_model, LayerError, "no weight there"),
    (of_other_shape, LayerError, "the mask of '0' has shape"),
    (of_other_density, LayerError, "the mask is of another model, or of another density"),
    (changed_where_pruned, LayerError, "weights of '0' are changed where its mask prunes"),
    (changed_in_one_layer, LayerError, "pruned weights of '0' are not 0"),
    (changed_in_each_layer, LayerError, "or pruned weights have been changed"),
    (of_lower_density, LayerError, "that its mask prunes are 0, and the others are not"),
    (of_higher_density, LayerError, "or of another density; give the masks"),
    (of_higher_density_with_dense, LayerError, "are 0, and not in the dense model"),
    (of_another_method, LayerError, "are 0, and not in the dense model"),
    (pruned_without_dense, ConfigError, "least-squares needs the dense model"),
    (dense_is_the_model, ConfigError, "dense is the model itself"),
    (dense_of_other_shape, LayerError, "dense is not the dense model of the masks"),
    (frozen, LayerError, "all masked layers are frozen"),
    (tied, LayerError, "shares its weights"),
    (quantised, LayerError, "'2' .* is quantised"),
    (computed, LayerError, "computes its weight"),
    (tied, LayerError, "its mask is to be left out"),
    (one_sample, DataError, "holds one sample"),
    (not_finite, LayerError, "NaN or infinite"),
    (lambda toy: {"masks": {}}, LayerError, "masks is empty"),
    (lambda toy: {"method": "least-square"}, ConfigError, "did you mean 'least-squares'"),
    (lambda toy: {"ridge": -1}, ConfigError, "ridge = -1"),
    (lambda toy: {"rigde": 1}, ConfigError, "did you mean 'ridge'"),
    (lambda toy: {"method": "auto", "ridge": 1}, ConfigError, "auto has no settings of its own"),
    (lambda toy: {"max_memory": 1000}, MemoryLimitError, "raise max_memory"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD)
def test_bad_input_is_refused_before_any_work(change, error, words, tmp_path):
    toy = make_toy()
    arguments = {
        "masks": toy_masks(toy, 0.5),
        "batches": toy.batches,
        "loss": toy.loss,
        "method": "least-squares",
        "run": tmp_path / "recovery",
    } | change(toy)
    try:
        before = state_of(toy.model)
    except AttributeError:  # the state of a quantised layer is not a tensor
        before = {}
    masks, batches, loss = (arguments.pop(name) for name in ("masks", "batches", "loss"))
    with pytest.raises(error, match=words):
        recover(toy.model, masks, batches, loss, **arguments)
    for name, value in before.items():
        assert torch.equal(toy.model.state_dict()[name].nan_to_num(), value.nan_to_num())
    assert not (tmp_path / "recovery").exists()


@pytest.mark.parametrize("what", ["model", "masks", "samples", "settings"])
def test_a_folder_of_another_recovery_is_refused(what, tmp_path):
    toy = make_toy()
    arguments: dict[str, Any] = {"method": "least-squares", "run": tmp_path / "recovery"}
    recover(toy.model, toy_masks(toy, 0.5), toy.batches, toy.loss, **arguments)
    toy = make_toy(seed=1) if what == "model" else make_toy()
    masks = toy_masks(toy, 0.5, seed=int(what == "masks"))
    batches = toy.batches[:3] if what == "samples" else make_toy().batches
    if what == "settings":
        arguments["ridge"] = 0.5
    before = state_of(toy.model)
    with pytest.raises(RunFolderError, match=f"not the {what} of the recovery"):
        recover(toy.model, masks, batches, toy.loss, **arguments)
    assert equal(state_of(toy.model), before)


@pytest.mark.parametrize("name", ["manifest.json", "checkpoint.safetensors", "history.csv"])
def test_damaged_files_are_refused(name, tmp_path):
    toy, run = make_toy(), tmp_path / "recovery"
    masks = toy_masks(toy, 0.5)
    recover(toy.model, masks, toy.batches, toy.loss, method="least-squares", run=run)
    path = run / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    toy = make_toy()
    before = state_of(toy.model)
    with pytest.raises(RunFolderError):
        recover(toy.model, masks, toy.batches, toy.loss, method="least-squares", run=run)
    assert equal(state_of(toy.model), before)


def test_a_sparse_model_is_dense_if_it_is_given_as_such(toy):
    """Zeros of the dense model are not those of a mask."""
    apply_masks(toy.model, magnitude(toy, 0.3))
    masks = magnitude(toy, 0.1)
    pruned = copy.deepcopy(toy.model)
    apply_masks(pruned, masks)
    with pytest.raises(LayerError, match="as dense too"):
        recover(copy.deepcopy(toy.model), masks, toy.batches, toy.loss, method="least-squares")
    for model in (pruned, copy.deepcopy(toy.model)):
        given = {"dense": copy.deepcopy(toy.model), "method": "least-squares"}
        result = recover(model, masks, toy.batches, toy.loss, **given)
        assert result.loss <= result.initial_loss


def test_masks_that_keep_everything_are_of_a_dense_model(toy):
    masks = {name: torch.ones_like(mask) for name, mask in toy_masks(toy, 0.5).items()}
    result = recover(toy.model, masks, toy.batches, toy.loss, method="least-squares")
    assert result.dense_loss == result.initial_loss


def test_a_few_zeros_among_kept_weights_are_warned_of(toy):
    masks = magnitude(toy, 0.5)
    apply_masks(toy.model, masks)
    wider = {name: mask.clone() for name, mask in masks.items()}
    wider["0"][~masks["0"]] = torch.rand(int((~masks["0"]).sum())) < 0.1
    with pytest.warns(DensityWarning, match="if the mask is not the one") as caught:
        recover(toy.model, wider, toy.batches, toy.loss, method="distill", target="data", epochs=1)
    assert caught[0].filename == __file__


def test_the_least_memory_that_is_named_is_enough(toy):
    masks = toy_masks(toy, 0.5)
    for method in ("global", "least-squares"):
        with pytest.raises(MemoryLimitError) as error:
            recover(toy.model, masks, toy.batches, toy.loss, method=method, max_memory=1)
        number, unit = re.search(r"about ([\d.]+) (\wB)", str(error.value)).groups()
        limit = math.ceil(float(number) * {"KB": 1e3, "MB": 1e6}[unit] * 1.01)
        model = copy.deepcopy(toy.model)
        recover(model, masks, toy.batches, toy.loss, method=method, max_memory=limit)


def test_memory_is_kept_within_the_limit(toy):
    """A small limit gives small batches, and the same weights up to rounding."""
    masks = toy_masks(toy, 0.5)
    free = copy.deepcopy(toy.model)
    recover(free, masks, toy.batches, toy.loss, method="least-squares")
    config = RecoveryConfig.of(method="least-squares")
    subject = Subject.prepare(copy.deepcopy(toy.model), masks, toy.batches, toy.loss, config)
    from icbs.recovery.memory import make_plan
    from icbs.recovery.recover import make_method

    method = make_method("least-squares", {})
    parts = make_plan(subject, [method]).parts
    limit = sum(parts.values()) - parts["activations"] // 2
    tight = recover(
        toy.model, masks, toy.batches, toy.loss, method="least-squares", max_memory=limit
    )
    assert isinstance(tight, RecoveryResult)
    small = make_plan(
        dataclasses.replace(subject, config=config.model_copy(update={"max_memory": limit})),
        [method],
    )
    assert 1 <= small.batch_size < 600
    for one, other in zip(free.parameters(), toy.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
