"""Models and arguments that are refused by name and left unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import (
    DataError,
    LayerError,
    Pruner,
    PrunerConfig,
    apply_masks,
    check_pattern,
    hold_masks,
    save_compressed,
    save_masks,
    to_torch_pruning,
)
from icbs.curvature.hessian import Hessian
from icbs.data.losses import CausalLMLoss
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from problems import IcbsError
from tests.icbs.language import make_language_model
from tests.icbs.passes import look, matrix_of

LOSS = nn.CrossEntropyLoss()
SETTINGS: dict[str, Any] = {"density": 0.5, "passes": 1, "block_size": 8}


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 12, generator=generator)
    return [(x, torch.randint(4, (64,), generator=generator))]


class Net(nn.Module):
    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(12, 16) if first is None else first
        self.b = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b((h[0] if isinstance(h, tuple) else h).relu())


class Pair(nn.Linear):
    """A linear layer like Megatron's that returns its bias and the output."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class Forces(Net):
    """A model that takes gradients in the forward pass, like potentials and PINNs."""

    @torch.enable_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        h = self.a(x).tanh()
        return self.b(h) + torch.autograd.grad(h.sum(), x, create_graph=True)[0][:, :4]


class Mapped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.vmap(lambda v: self.a(v))(x))


def inferred() -> Net:
    with torch.inference_mode():
        return Net()


def with_weight(weight: Callable[[Tensor], Tensor]) -> Net:
    model = Net()
    model.a.weight = nn.Parameter(weight(model.a.weight.detach()), requires_grad=False)
    return model


def shared_memory() -> Net:
    model = Net(nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 16)))
    model.a[1].weight = nn.Parameter(model.a[0].weight.detach().T)
    return model


ODD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tuple": (lambda: Net(Pair(12, 16)), r"'a' \(Pair\) returns tuple.*exclude it"),
    "gradients": (lambda: Forces(), "takes gradients through layer 'a' in its forward pass"),
    "vmap": (lambda: Mapped(), "'a' runs inside of a transformation of torch.func"),
    "inference": (inferred, "'a.weight' of the model was created under torch.inference_mode"),
    "expanded": (lambda: with_weight(lambda w: w[:1].expand(16, 12)), "'a' has an expanded weight"),
    "meta": (lambda: with_weight(lambda w: w.to("meta")), "'a' has its weights on the meta device"),
    "sparse": (lambda: with_weight(Tensor.to_sparse), "'a' has weights that are sparse"),
    "quantised": (
        lambda: with_weight(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
        r"'a' has quantised weights \(Tensor, torch.qint8\)",
    ),
    "shared memory": (shared_memory, r"'a.0' shares its weights \(a.0.weight, a.1.weight\)"),
}
#: What only gradients mind.
HARMLESS = {"gradients"}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:.*uantiz")
def test_models_are_refused_by_name_and_left_as_they_were(name, tmp_path):
    make, message = ODD[name]
    model = make()
    asked = [p.requires_grad for p in model.parameters()]
    training = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict()) if name != "inference" else {}
    uses = [lambda: Pruner(**SETTINGS).prune(model, data(), LOSS, run=tmp_path / "run")]
    if name not in HARMLESS:
        uses.append(lambda: prune_layerwise(model, data(), "wanda", density=0.5))
    for use in uses:
        with pytest.raises(LayerError, match=message):
            use()
    assert [p.requires_grad for p in model.parameters()] == asked
    assert [m.training for m in model.modules()] == training
    for key, value in model.state_dict().items():
        if key in before and not value.is_meta:
            one, two = (t.to_dense() if t.is_sparse else t for t in (value, before[key]))
            assert torch.equal(one, two)
    assert not (tmp_path / "run").exists()
    if name in ("tuple", "vmap", "expanded"):
        found = Pruner(**SETTINGS, exclude=["a"]).prune(model, data(), LOSS)
        assert set(found.masks) == {"b"}


def test_inputs_made_under_inference_mode_are_accepted_by_layerwise_methods():
    class Features(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                x = x * 1.5
            return super().forward(x)

    with pytest.raises(LayerError, match="inputs of layer 'a' are made under torch.inference_mode"):
        Pruner(**SETTINGS).prune(Features(), data(), LOSS)
    found = prune_layerwise(Features(), data(), "wanda", density=0.5).masks
    expected = prune_layerwise(Net(), data(), "wanda", density=0.5).masks
    assert torch.equal(found["a"], expected["a"])


def test_a_loader_without_batches_is_refused():
    x, y = data()[0]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=None)
    for use in (
        lambda: Pruner(**SETTINGS).prune(Net(), loader, LOSS),
        lambda: prune_layerwise(Net(), loader, "wanda", density=0.5),
    ):
        with pytest.raises(DataError, match="batch_size=None; .*set batch_size"):
            use()


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda t: t.to("meta"), "on the meta device"),
        (lambda t: t.to_sparse(), r"sparse \(torch.sparse_coo\)"),
        (
            lambda t: torch.quantize_per_tensor(t.float(), 1.0, 0, torch.quint8),
            r"quantised \(torch.quint8\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*uantiz")
def test_tensors_without_plain_values_are_refused_wherever_they_are_given(odd, message, tmp_path):
    x, y = data()[0]
    model = Net()
    masks = prune_layerwise(model, None, "magnitude", density=0.5).masks
    wrong = {name: odd(mask) for name, mask in masks.items()}
    path = tmp_path / "file.safetensors"
    uses: list[Callable[[], object]] = [
        lambda: apply_masks(model, wrong),
        lambda: hold_masks(model, wrong),
        lambda: to_torch_pruning(model, wrong),
        lambda: check_pattern(wrong),
        lambda: save_masks(wrong, path),
        lambda: save_compressed(model.state_dict(), wrong, path),
        lambda: Pruner(**SETTINGS).prune(Net(), data(), LOSS, masks=wrong),
        lambda: Pruner(**SETTINGS, allocation="global").prune(Net(), data(), LOSS, masks=wrong),
        lambda: Pruner(**SETTINGS).prune(Net(), [(odd(x), y)], LOSS),
        lambda: Pruner(**SETTINGS).prune(Net(), [(x, odd(y))], LOSS),
        lambda: save_compressed({"a.weight": odd(x)}, {"a": x > 0}, path),
    ]
    for use in uses:
        with pytest.raises(IcbsError, match=message):
            use()
    assert not path.exists()


def test_masks_on_weights_without_values_are_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4))
    masks = {"0": torch.ones(4, 4, dtype=torch.bool)}
    for use in (apply_masks, hold_masks, to_torch_pruning):
        with pytest.raises(LayerError, match="'0' has its weights on the meta device"):
            use(model, masks)


class Attention(nn.Module):
    """One head, by torch's function or by matrix products."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.out, self.fused = nn.Linear(8, 8), nn.Linear(8, 3), fused

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        if self.fused:
            h = F.scaled_dot_product_attention(q[:, None], x[:, None], x[:, None])[:, 0]
        else:
            h = (q @ x.mT / 8**0.5).softmax(-1) @ x
        return self.out(h.tanh()).mean(dim=1)


def test_exact_curvature_of_fused_attention_is_that_of_attention_written_out():
    x = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
    samples = Samples(x, torch.arange(6) % 3)
    index, found = torch.arange(10), []
    for fused in (True, False):
        model = Attention(fused=fused).eval()
        layer = find_layers(model, PrunerConfig(density=0.5))[0]
        pass_info = look(model, [layer], Objective(LOSS), samples, Hessian(6))
        found.append(matrix_of(pass_info, layer, index))
    assert found[1].norm() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_exact_curvature_of_a_model_of_transformers_under_its_usual_attention():
    pytest.importorskip("transformers")
    ids = torch.randint(0, 200, (8, 6), generator=torch.Generator().manual_seed(0))
    model = make_language_model(attn_implementation="sdpa")
    settings = {"density": 0.5, "passes": 1, "block_size": 4, "curvature": "exact"}
    result = Pruner(**settings, include=["*q_proj"]).prune(
        model, [({"input_ids": ids}, ids)], CausalLMLoss()
    )
    assert result.loss <= result.initial_loss


def test_models_without_second_derivatives_are_refused_before_work_starts(tmp_path):
    class Fused(Net):
        """Calls a fused kernel directly."""

        def forward(self, x: Tensor) -> Tensor:
            q = self.a(x)[:, None, None].expand(-1, 1, 2, -1)
            return self.b(
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)[0][:, 0, 0]
            )

    model = Fused()
    before = model.a.weight.clone()
    with pytest.raises(DataError, match="curvature='exact' needs second derivatives.*eager"):
        Pruner(**SETTINGS, curvature="exact").prune(model, data(), LOSS, run=tmp_path / "run")
    assert torch.equal(model.a.weight, before)
    assert not (tmp_path / "run").exists()
