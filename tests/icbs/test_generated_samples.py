"""Samples of the dense model itself: seeded, cached, and used for the weights only."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from icbs import ConfigError, recover
from icbs.data.losses import CausalLMLoss
from icbs.layerwise import prune_layerwise
from icbs.lm.windows import batches_of
from icbs.recovery import generate as module
from icbs.recovery.config import RecoveryConfig
from icbs.recovery.generate import generate
from tests.icbs.language import make_language_model

pytest.importorskip("transformers")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def model():
    return make_language_model()


def test_the_seed_determines_the_tokens(model, cache):
    first = generate(model, 20, 24, seed=3, cache=False)
    assert first.shape == (20, 24)
    assert torch.equal(first, generate(model, 20, 24, seed=3, cache=False))
    assert not torch.equal(first, generate(model, 20, 24, seed=4, cache=False))
    assert not (first == 256).any()  # the end of a text


def test_the_global_random_numbers_are_unchanged(model, cache):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    generate(model, 2, 10, cache=False)
    assert torch.equal(torch.rand(3), expected)


def test_the_tokens_after_the_first_are_the_most_probable_ones(model, cache):
    found = generate(model, 3, 12, cache=False)
    with torch.no_grad():
        logits = model(found).logits
    logits[..., 256] = -torch.inf
    assert torch.equal(logits.argmax(-1)[:, : module.GREEDY], found[:, 1 : module.GREEDY + 1])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("min_p", 0.9), ("repetition_penalty", 1e6), ("num_beams", 3), ("bad_words_ids", [[7], [8]])],
)
def test_the_model_s_own_settings_of_generation_have_no_effect(model, cache, setting, value):
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    expected = generate(model, 32, 24, cache=False)
    setattr(model.generation_config, setting, value)
    own = model.generation_config
    assert torch.equal(generate(model, 32, 24, cache=False), expected)
    assert model.generation_config is own


def test_no_end_of_the_generation_s_settings_is_sampled(model, cache):
    model.generation_config.eos_token_id = [256, *range(100)]
    assert generate(model, 20, 24, cache=False).min() >= 100


def test_sampled_tokens_follow_the_model(model, cache):
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
        found = generate(model, 256, 12, cache=False)
        log = model(found).logits[..., :256].log_softmax(-1)
    at, log = found[:, module.GREEDY + 1 :, None], log[:, module.GREEDY : -1]
    entropy = -(log.exp() * log).sum(-1).mean()
    assert 0.5 < float(entropy) < 5  # neither certain nor uniform
    assert float(-log.gather(-1, at).mean()) == pytest.approx(float(entropy), rel=0.1)


def test_sequences_are_cached_by_model_and_arguments(model, cache):
    first = generate(model, 4, 10)
    (file,) = cache.iterdir()
    stamp = file.stat().st_mtime_ns
    assert torch.equal(generate(model, 4, 10), first)
    assert file.stat().st_mtime_ns == stamp
    generate(model, 4, 11)
    with torch.no_grad():
        model.lm_head.weight.add_(0.1)
    generate(model, 4, 10)
    assert len(list(cache.iterdir())) == 3
    file.write_bytes(file.read_bytes()[:-8])
    with torch.no_grad():
        model.lm_head.weight.sub_(0.1)
    generate(model, 4, 10)


def test_sequences_continue_pieces_of_whole_samples(model, cache):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (6, 20), generator=generator)
    mask = torch.ones_like(tokens)
    mask[:3, :15] = 0  # padded on the left, and shorter than a prompt
    mask[3, 12:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    prompts = module.prompts_from(inputs, 200, 6, seed=1)
    allowed = {
        tuple(row[at : at + 6].tolist())
        for row, own in zip(tokens, mask, strict=True)
        for at in range(15)
        if own[at : at + 6].all()
    }
    found = {tuple(piece.tolist()) for piece in prompts}
    assert found <= allowed
    assert len(found) > 0.8 * len(allowed)
    sequences = generate(model, 8, 20, prompts=prompts[:8], cache=False)
    assert sequences.shape == (8, 20)
    assert torch.equal(sequences[:, :6], prompts[:8])
    first, other = (generate(model, 8, 20, prompts=prompts[i : i + 8]) for i in (0, 8))
    assert not torch.equal(first, other)  # not the cached ones of other prompts
    with pytest.raises(ConfigError, match="prompt = 20 tokens, and the samples have at most 20"):
        module.prompts_from(inputs, 2, 20, seed=1)
    with pytest.raises(ConfigError, match="prompt = 16 tokens, and the samples have at most 5"):
        module.prompts_from({name: t[:3] for name, t in inputs.items()}, 2, 16, seed=1)


def test_a_prompt_needs_generated_samples():
    with pytest.raises(ConfigError, match="prompt = 16 is for generated samples"):
        RecoveryConfig.of(prompt=16)


def recovered(model, **settings):
    windows = torch.randint(256, (10, 16), generator=torch.Generator().manual_seed(0))
    batches = batches_of(windows)
    pruned = copy.deepcopy(model)
    found = prune_layerwise(pruned, batches, "magnitude", density=0.3, exclude=["lm_head"])
    seen = []
    result = recover(
        pruned,
        found.masks,
        batches,
        CausalLMLoss(),
        dense=model,
        method="distill",
        epochs=2,
        callback=seen.append,
        **settings,
    )
    return pruned, result


@pytest.mark.parametrize("prompt", [0, 5])
def test_a_recovery_uses_them_beside_the_given_samples(model, cache, prompt):
    _, without = recovered(model)
    more, with_them = recovered(model, generate=24, prompt=prompt)
    # The same samples are held out.
    assert with_them.initial_loss == without.initial_loss
    assert with_them.loss <= with_them.initial_loss
    assert with_them.history[-1].calibration_error != without.history[-1].calibration_error
    for name, mask in with_them.masks.items():
        assert not more.get_submodule(name).weight[~mask].any()


def test_what_can_not_generate_is_refused(toy, cache):
    masks = prune_layerwise(copy.deepcopy(toy.model), None, "magnitude", density=0.5).masks
    with pytest.raises(ConfigError, match="the model is Sequential; leave generate out"):
        recover(toy.model, masks, toy.batches, toy.loss, method="distill", generate=4)
    with pytest.raises(ConfigError, match="Linear"):
        generate(nn.Linear(2, 2), 1, 4)


def test_the_context_of_the_model_is_respected(model, cache):
    with pytest.raises(ConfigError, match="context is 128"):
        generate(model, 1, 129)
