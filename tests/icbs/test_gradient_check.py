"""Losses, layouts and uses of weights with which gradients would be wrong, found before work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import CausalLMLoss, ClassificationLoss, DataError, IcbsError, LayerError, Pruner
from icbs.config import PrunerConfig
from icbs.curvature import gradient_check
from icbs.curvature.gradient_check import check_gradients, count_samples
from icbs.data.objective import Objective
from icbs.data.samples import Samples, diverse_samples
from icbs.model.finding import find_layers
from icbs.run.context import RunContext
from tests.icbs.passes import empirical, factor_of, look
from tests.icbs.test_kinds import KINDS, build
from tests.icbs.test_passes import Mixer, sequences

QUICK = {"density": 0.5, "passes": 2, "block_size": 16}
LOSS = nn.CrossEntropyLoss()
LABELS = torch.arange(64) // 16
"""Sorted by class, as a folder of images is read."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


def refuse(
    model: nn.Module,
    batch: tuple[Any, Tensor],
    loss: Any,
    error: type[Exception],
    match: str,
    **settings: Any,
) -> None:
    """Expect an error by name, with the model as it was."""
    before = copy.deepcopy(model.state_dict())
    asked = [p.requires_grad for p in model.parameters()]
    with pytest.raises(error, match=match) as caught:
        Pruner(**(QUICK | settings)).prune(model, [batch], loss)
    assert isinstance(caught.value, IcbsError)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == asked


def prune(model: nn.Module, batch: tuple[Any, Tensor], loss: Any, **settings: Any) -> Any:
    return Pruner(**(QUICK | settings)).prune(model, [batch], loss)


# -- the three computations ---------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_projections_are_those_of_autograds_per_sample_gradients(name):
    model, samples, layer = build(name)
    objective = Objective(LOSS)
    check = gradient_check._Check(model, [layer], objective, 4, rows=True)
    left, right = check.probes["layer"]
    groups, (out, width) = layer.kind.groups, layer.shape
    # Row r sees the part of `right` that belongs to its group.
    part = torch.arange(out) // (out // groups)
    expected = torch.zeros(len(samples), gradient_check.PROBES, dtype=torch.float64)
    for s in range(len(samples)):
        model.zero_grad()
        LOSS(model(samples.inputs[s : s + 1]), samples.targets[s : s + 1]).backward()
        matrix = layer.kind.matrix(layer.module.weight.grad)
        seen = right.view(groups, width, -1)[part]
        expected[s] = torch.einsum("rc,rp,rcp->p", matrix, left, seen)
    found = check.gradients(samples, 4)
    torch.testing.assert_close(found.rows["layer"], expected)
    torch.testing.assert_close(found.whole["layer"], expected.sum(dim=0))


# -- the loss -----------------------------------------------------------------------------

WEIGHTS = torch.tensor([1.0, 10, 100, 1000])


class OverPositions(nn.Module):
    """Logits of shape (N, classes, T), as torch's cross-entropy takes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()).transpose(1, 2)


def padded(lengths: Tensor) -> Tensor:
    labels = torch.randint(4, (64, 10), generator=torch.Generator().manual_seed(0))
    return labels.masked_fill(torch.arange(10) >= lengths[:, None], -100)


@pytest.mark.parametrize("shuffled", [False, True])
def test_class_weights_are_refused_however_samples_are_sorted(shuffled):
    loss = nn.CrossEntropyLoss(weight=WEIGHTS)
    order = draw(64).argsort() if shuffled else torch.arange(64)
    refuse(mlp(), (draw(64, 12), LABELS[order]), loss, DataError, "no class weights")


@pytest.mark.parametrize("short", [60, 1])
def test_means_over_tokens_are_refused_where_a_few_samples_are_padded(short):
    lengths = torch.full((64,), 10)
    lengths[64 - short :] = 3
    refuse(OverPositions(), (draw(64, 10, 6), padded(lengths)), LOSS, DataError, "CausalLMLoss")


def test_the_mean_over_tokens_of_a_models_own_loss_is_refused():
    """As models of transformers compute it from labels among their inputs."""

    class Own(Mixer):
        def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
            return F.cross_entropy(super().forward(input_ids).transpose(1, 2), labels)

    torch.manual_seed(0)
    samples = sequences(count=64)
    samples.targets[50, 2:] = -100
    inputs = {"input_ids": samples.inputs["input_ids"], "labels": samples.targets}
    batch = inputs, torch.zeros(64)
    own: dict[str, Any] = {"curvature": "empirical"}
    refuse(Own(), batch, lambda outputs, _: outputs, DataError, "averages each sequence", **own)


def test_means_over_tokens_are_taken_where_all_samples_are_as_long():
    result = prune(OverPositions(), (draw(64, 10, 6), padded(torch.full((64,), 7))), LOSS)
    assert result.loss <= result.initial_loss


def test_a_sum_over_tokens_is_taken_whatever_their_number():
    lengths = 1 + torch.arange(64) % 10
    loss = nn.CrossEntropyLoss(reduction="sum")
    result = prune(OverPositions(), (draw(64, 10, 6), padded(lengths)), loss)
    assert result.loss <= result.initial_loss


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_a_weighted_sum_is_taken_in_any_unit_and_has_autograds_gradient(unit):
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return unit * F.cross_entropy(outputs, targets, weight=WEIGHTS, reduction="sum")

    model, x = mlp(), draw(64, 12)
    context = RunContext.prepare(
        model, [(x, LABELS)], loss, PrunerConfig(**QUICK, curvature="empirical")
    )
    assert context.objective.sums
    samples = Samples(x, LABELS)
    found = look(model, context.layers, context.objective, samples, batch_size=10)
    expected = torch.autograd.grad(loss(model(x), LABELS) / 64, model[0].weight)[0]
    torch.testing.assert_close(found.gradients["0"], expected, rtol=1e-3, atol=1e-5 * unit)


def test_a_coupling_too_small_to_show_in_the_loss_shows_in_its_gradients():
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 1e-8 * F.cross_entropy(outputs, targets, weight=WEIGHTS)

    batch = draw(64, 12), LABELS
    refuse(mlp(), batch, loss, DataError, "together is not the sum of", curvature="empirical")


# -- the layout ---------------------------------------------------------------------------


class TwoViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.e, self.h = nn.Linear(12, 8), nn.Linear(16, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.h(torch.cat(self.e(torch.cat([a, b])).relu().chunk(2), 1))


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.e, self.r, self.h = nn.Linear(6, 8), nn.LSTM(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.r(self.e(x.transpose(0, 1)))[0][-1])


MIXING: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "two views": (TwoViews, (draw(64, 12), draw(64, 12, seed=1))),
    "time first": (TimeFirst, draw(64, 32, 6)),
    "time first, 33": (TimeFirst, draw(64, 33, 6)),
}


@pytest.mark.parametrize("curvature", ["monte-carlo", "empirical", "fisher+gram"])
@pytest.mark.parametrize("name", MIXING)
def test_samples_that_do_not_lie_one_after_another_are_refused(name, curvature):
    make, inputs = MIXING[name]
    match = r"'e' sees \(33,.*batch_size=1" if "33" in name else "'e' is off by.*batch_size=1"
    batch = inputs, LABELS
    refuse(make(), batch, LOSS, DataError, match, curvature=curvature, batch_size=16)
    assert prune(make(), batch, LOSS, curvature=curvature, batch_size=16, exclude=["e"])


@pytest.mark.parametrize("name", MIXING)
def test_one_sample_at_a_time_they_are_right(name):
    make, inputs = MIXING[name]
    model, batch = make(), (inputs, LABELS)
    assert prune(make(), batch, LOSS, batch_size=1).density == pytest.approx(0.5, abs=0.01)
    layer = find_layers(model, PrunerConfig(include=["e"], density=0.5))[0]
    some = Samples(inputs, LABELS)[::4]
    index = torch.arange(layer.size)
    pass_info = look(model, [layer], Objective(LOSS), some, empirical(16), batch_size=1)
    rows = []
    for i in range(16):
        model.zero_grad()
        one = some[i : i + 1]
        given = one.inputs if isinstance(one.inputs, tuple) else (one.inputs,)
        LOSS(model(*given), one.targets).backward()
        rows.append((model.e.weight.grad * layer.dense).flatten() / 4)
    found = factor_of(pass_info, layer, index)
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("curvature", ["gram", "exact"])
def test_sums_over_samples_do_not_care(curvature):
    batch = MIXING["two views"][1], LABELS
    assert prune(TwoViews(), batch, LOSS, curvature=curvature, block_size=4)


# -- weights ------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.mid, self.dec = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 12)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        h = self.mid(self.enc(x).tanh()).tanh()
        if self.way == "in a function":
            return F.linear(h, self.enc.weight.T, self.dec.bias) + self.dec(h)
        if self.way == "before its layer":
            x = x + F.linear(F.linear(x, self.enc.weight), self.dec.weight.detach())
            return self.dec(self.mid(self.enc(x).tanh()))
        if self.way == "called as a function":
            h = torch.func.functional_call(self.enc, {"weight": self.enc.weight}, (x,)) + h
            other = copy.copy(self.enc)
            other._forward_hooks = {}
            return self.dec(h + other(x))
        return self.dec(h)


class Regularised:
    def __init__(self, model: Tied, factor: float) -> None:
        self.model, self.factor = model, factor

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weights = self.factor * self.model.enc.weight.square().sum()
        return F.mse_loss(outputs, targets) + weights


@pytest.mark.parametrize(
    "way", ["in a function", "before its layer", "called as a function", "in a regulariser"]
)
def test_weights_used_elsewhere_are_refused_by_name(way):
    model, x = Tied(way), draw(64, 12)
    loss: Any = nn.MSELoss() if way != "in a regulariser" else Regularised(model, 0.1)
    settings = {"curvature": "empirical"}
    match = r"'enc' is off by \d+%; a weight that is used outside"
    refuse(model, (x, x), loss, LayerError, match, **settings)
    assert prune(model, (x, x), loss, exclude=["enc"], **settings).masks.keys() == {"mid", "dec"}


def test_a_term_of_weight_zero_changes_nothing():
    model, x = Tied("once"), draw(64, 12)
    assert prune(model, (x, x), Regularised(model, 0.0), curvature="empirical")


# -- no false alarms ----------------------------------------------------------------------


class Odd(nn.Module):
    """Layers that run twice, that bring no gradient, and whose gradient is next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twice, self.silent, self.faint = (nn.Linear(12, 12) for _ in range(3))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.twice(self.twice(x).tanh()).tanh()
        with torch.no_grad():
            gate = h.detach().sigmoid()
        return self.head(h * gate + 0 * self.silent(h) + 1e-9 * self.faint(h))


def test_odd_layers_are_taken():
    result = prune(Odd(), (draw(64, 12), LABELS), LOSS)
    assert result.masks.keys() == {"twice", "silent", "faint", "head"}


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_models_that_fit_their_samples_to_rounding_are_taken(scale):
    """Their own predictions as targets (distillation), or logits so large that no doubt is left."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU6()),
        *(nn.Flatten(), nn.Linear(8 * 36, 4)),
    )
    with torch.no_grad():
        model[-1].weight.mul_(scale)
        images = draw(64, 3, 8, 8)
        own = model(images)
    # Rounding alone is there to compare: without the targets of others it would be refused.
    for targets in (own.softmax(dim=1), own.argmax(dim=1)):
        assert prune(model, (images, targets), ClassificationLoss(), density=0.9)


def test_gradients_of_a_perfect_fit_are_noise_and_real_faults_are_still_found():
    model, x = TwoViews(), (draw(64, 12), draw(64, 12, seed=1))
    with torch.no_grad():
        own = model(*x).softmax(dim=1)
    refuse(model, (x, own), ClassificationLoss(), DataError, "'e' is off by")


class Dropping(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.a, self.b, self.share = nn.Linear(12, 16), nn.Linear(16, 4), share

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x).relu(), self.share))


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_models_that_are_random_are_told_so(share):
    torch.manual_seed(0)
    refuse(Dropping(share), (draw(64, 12), LABELS), LOSS, DataError, "random numbers")


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float64, "float32"),
        (torch.float32, "bfloat16"),
        (torch.float32, "float16"),
        (torch.bfloat16, "float32"),
        (torch.float16, "float32"),
    ],
)
def test_every_type_agrees_within_its_rounding(dtype, precision):
    model, samples = Mixer().to(dtype), sequences(count=24, pad=2)
    batch = samples.inputs, samples.targets
    result = prune(model, batch, CausalLMLoss(), precision=precision)
    assert result.density == 0.5
    tied = copy.deepcopy(model)
    tied.forward = lambda input_ids, attention_mask: (  # type: ignore[method-assign]
        Mixer.forward(tied, input_ids, attention_mask) @ tied.out.weight @ tied.out.weight.T
    )
    refuse(
        tied, batch, CausalLMLoss(), LayerError, "'out' is off by", precision=precision, passes=1
    )


TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODERS: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 1},
    "Mistral": {"num_key_value_heads": 1, "sliding_window": 4},
    "Gemma2": {"num_key_value_heads": 1, "head_dim": 8},
    "Phi": {},
    "GPTNeoX": {},
    "Bloom": {},
    "OPT": {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 32},
}
ENCODERS = ("Bert", "Roberta", "Electra", "Albert")
IMAGES = ("ViT", "DeiT", "Beit")


def ids(count: int = 12, length: int = 10) -> tuple[dict[str, Tensor], Tensor]:
    tokens = torch.randint(3, 61, (count, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    for i in range(count):
        mask[i, length - i % 5 :] = 0
    return {"input_ids": tokens, "attention_mask": mask}, tokens.masked_fill(mask == 0, -100)


def architecture(name: str) -> tuple[nn.Module, tuple[Any, Tensor], Any]:
    """Return a small model of a kind, a padded batch, and its loss."""
    transformers = pytest.importorskip("transformers")
    inputs, labels = ids()
    classes = torch.arange(12) % 3
    torch.manual_seed(0)
    if name in DECODERS:
        config = getattr(transformers, f"{name}Config")(**(TINY | DECODERS[name]))
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        return model, (inputs, labels), CausalLMLoss()
    if name == "GPT2":
        config = transformers.GPT2Config(
            vocab_size=61, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
        )
        return transformers.GPT2LMHeadModel(config), (inputs, labels), CausalLMLoss()
    if name == "T5":
        config = transformers.T5Config(
            vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
        )
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :6]
        model = transformers.T5ForConditionalGeneration(config)
        return model, (inputs, inputs["input_ids"][:, :6]), CausalLMLoss()
    if name in ENCODERS:
        config = getattr(transformers, f"{name}Config")(**TINY, num_labels=3)
        model = getattr(transformers, f"{name}ForSequenceClassification")(config)
        return model, (inputs, classes), ClassificationLoss()
    config = getattr(transformers, f"{name}Config")(
        **{key: TINY[key] for key in list(TINY)[1:5]}, image_size=8, patch_size=4, num_labels=3
    )
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    return model, ({"pixel_values": draw(12, 3, 8, 8)}, classes), ClassificationLoss()


ARCHITECTURES = (*DECODERS, "GPT2", "T5", *ENCODERS, *IMAGES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_of_transformers_are_taken(name, dtype):
    model, (inputs, targets), loss = architecture(name)
    model = model.eval().to(dtype)
    samples = Samples(inputs, targets)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    layers = find_layers(model, PrunerConfig(density=0.5))
    check_gradients(model, layers, Objective.check(loss, model, samples, targets), samples, 12)


# -- which samples, and how many ----------------------------------------------------------


def pick(targets: Tensor, count: int, inputs: Any = None, **named: Any) -> Tensor:
    given = torch.zeros(len(targets), 1) if inputs is None else inputs
    return diverse_samples(Samples(given, targets), count, **({"seed": 0} | named))


def test_samples_to_check_differ_in_class():
    labels = torch.arange(1000) // 100
    assert set(labels[pick(labels, 10)].tolist()) == set(range(10))
    found = labels[pick(labels, 25)]
    assert set(torch.bincount(found).tolist()) == {2, 3}
    assert {0, 9} <= set(labels[pick(labels, 4)].tolist())
    rare = torch.zeros(1000).long()
    rare[571] = 7
    assert 571 in pick(rare, 2)
    assert 571 in pick(F.one_hot(rare, 8).float(), 2)


def test_samples_to_check_differ_in_how_many_labels_count():
    labels = torch.zeros(500, 9).long()
    labels[123, 4:] = -100
    labels[77, 8:] = -100
    assert 123 in pick(labels, 2)
    assert {77, 123} <= set(pick(labels, 3).tolist())
    nothing = torch.zeros(500).long()
    assert {77, 123} <= set(pick(nothing, 3, {"labels": labels}).tolist())
    mask = (labels != -100).long()
    assert {77, 123} <= set(pick(nothing, 3, {"attention_mask": mask}).tolist())
    labels[labels == -100] = 255
    assert 123 in pick(labels, 2, ignored=255)


def test_samples_to_check_are_drawn_from_all_and_by_the_seed():
    targets = torch.randn(1000, 1)
    found = pick(targets, 32, seed=1)
    assert len(set(found.tolist())) == 32
    assert found.max() > 500
    assert torch.equal(found, pick(targets, 32, seed=1))
    assert not torch.equal(found, pick(targets, 32, seed=2))
    assert len(pick(targets[:5], 32, seed=1)) == 5


@pytest.mark.parametrize(
    ("activations", "planned", "available", "count"),
    [
        (10_000, 4096, 60_000, 32),
        (10_000, 20, 20, 20),
        (400 << 20, 128, 300, 4),
        (400 << 20, 32, 64, 2),
        (30 << 20, 4096, 9000, 32),
    ],
)
def test_the_check_costs_a_small_share_of_a_pass(activations, planned, available, count):
    assert count_samples(activations, planned, available) == count


def test_a_run_draws_the_same_randomness_with_the_check_as_without(monkeypatch):
    def masks() -> dict[str, Tensor]:
        return prune(mlp(), (draw(64, 12), LABELS), LOSS).masks

    expected = masks()
    monkeypatch.setattr("icbs.run.context.check_gradients", lambda *args, **named: None)
    assert all(torch.equal(mask, expected[name]) for name, mask in masks().items())
