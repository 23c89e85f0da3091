"""PEFT models: base layers are pruned and saved under their own names, adapters stay dense."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import CausalLMLoss, DensityWarning, LayerError, Pruner, apply_masks
from icbs.config import PrunerConfig
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from tests.icbs.language import make_language_model
from tests.icbs.passes import look


@pytest.fixture(scope="module", autouse=True)
def _peft() -> None:
    """Import the library when the first test runs: it takes seconds."""
    global peft
    peft = pytest.importorskip("peft")


SETTINGS: dict[str, Any] = {"density": 0.5, "passes": 2, "block_size": 16}


def data() -> list[tuple[dict[str, Tensor], Tensor]]:
    ids = torch.randint(0, 200, (16, 10), generator=torch.Generator().manual_seed(0))
    return [({"input_ids": ids}, ids)]


def adapted(model: nn.Module, **more: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = peft.LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **more
        )
        return peft.get_peft_model(model, config)


@pytest.mark.filterwarnings("ignore::icbs.DensityWarning")
def test_the_folder_holds_the_pruned_base_as_the_library_loads_it(tmp_path):
    from transformers import AutoModelForCausalLM

    dense, model = make_language_model(), adapted(make_language_model())
    adapters = {n: p.clone() for n, p in model.named_parameters() if "lora" in n}
    result = Pruner(**SETTINGS).prune(model, data(), CausalLMLoss(), run=tmp_path / "run")
    assert len(result.masks) == 14
    apply_masks(dense, result.masks)
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "run" / "pretrained", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = dense.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    for name, value in model.named_parameters():
        assert name not in adapters or torch.equal(value, adapters[name])
    assert isinstance(model, peft.PeftModel)


@pytest.mark.filterwarnings("ignore::icbs.DensityWarning")
def test_gradients_are_those_of_the_adapted_model():
    """A base layer's gradient, by autograd, of the whole model with its adapters."""
    model = adapted(make_language_model()).double()
    inputs, labels = data()[0]
    for parameter in model.parameters():
        parameter.requires_grad_()
    CausalLMLoss()(model(**inputs), labels).backward()
    with evaluation_mode(model) as plain:
        layers = find_layers(plain, PrunerConfig(density=0.5))
        samples = Samples(inputs, labels)
        found = look(plain, layers, Objective(CausalLMLoss()), samples, batch_size=5)
    assert len(layers) == 14
    for layer in layers:
        torch.testing.assert_close(
            found.gradients[layer.name], layer.module.weight.grad, rtol=1e-6, atol=1e-9
        )


def test_adapters_are_left_dense_with_a_warning_unless_they_are_named():
    with pytest.warns(DensityWarning, match="8 matrices of adapters are left dense"):
        found = prune_layerwise(adapted(make_language_model()), data(), "wanda", density=0.5)
    assert not any("lora" in name for name in found.masks)
    assert any("lora_A" in name for name in found.left_dense)
    model = adapted(make_language_model())
    found = prune_layerwise(model, data(), "wanda", density=0.5, include=["*", "*lora_A*"])
    assert sum("lora_A" in name for name in found.masks) == 4


@pytest.mark.filterwarnings("ignore::icbs.DensityWarning")
def test_layerwise_methods_replay_blocks_with_adapters():
    """An adapter that adds nothing gives the result of the plain model."""
    plain = prune_layerwise(make_language_model(), data(), "wanda", density=0.5).masks
    model = adapted(make_language_model())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    found = prune_layerwise(model, data(), "wanda", density=0.5).masks
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], mask) for name, mask in plain.items())


@pytest.mark.filterwarnings("ignore::icbs.DensityWarning")
def test_adapters_added_by_transformers_are_saved_separately_too(tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_language_model()
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    result = Pruner(**SETTINGS).prune(model, data(), CausalLMLoss(), run=tmp_path / "run")
    dense = make_language_model()
    apply_masks(dense, result.masks)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "pretrained")
    expected = dense.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert model._hf_peft_config_loaded


def merged() -> Any:
    model = adapted(make_language_model())
    model.merge_adapter()
    return model


def prompted() -> Any:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    return peft.get_peft_model(make_language_model(), config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (merged, "is merged into its base layer.*merge_and_unload"),
        (prompted, "learned prompts.*get_base_model"),
        (
            lambda: adapted(make_language_model(), modules_to_save=["lm_head"]),
            "'.*lm_head' is a trained copy.*merge_and_unload",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_adapters_that_must_be_merged_first_are_refused_by_name(make, message, tmp_path):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LayerError, match=message):
        Pruner(**SETTINGS).prune(model, data(), CausalLMLoss(), run=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "run").exists()
