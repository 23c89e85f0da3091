"""Samples that a language model generates itself, for the recovery of a pruned copy.

They follow the distribution that the model has learned, and there are as many as wanted
(arXiv 2406.15524, section 4).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icbs import streams
from icbs.data.losses import CausalLMLoss
from icbs.data.samples import Samples
from icbs.downloads import cache_folder
from icbs.errors import ConfigError, RunFolderError
from icbs.export.digests import json_digest, tensors_digest
from icbs.export.safetensors_files import open_tensors, write_tensors

log = logging.getLogger("icbs")
FORMAT = "icbs-generated-1"
GREEDY = 4
"""Tokens after the first that are the most probable ones."""
BATCH = 16
"""Sequences that are generated together."""
PROMPTS = 1 << 20
"""Number of the random stream of the prompts; those of batches are smaller."""


def generate(
    model: nn.Module,
    count: int,
    length: int,
    *,
    prompts: Tensor | None = None,
    seed: int = 0,
    cache: bool = True,
) -> Tensor:
    """Sample token sequences from a causal language model.

    Sequences continue prompts. Without these the first token is drawn from the vocabulary
    uniformly, and the next four are the most probable ones. All others are sampled at temperature
    1. The end of a text is not sampled. The model's own settings of generation (such as ``top_k``
    and ``repetition_penalty``) are not used.

    Parameters
    ----------
    model : nn.Module
        A dense model of the ``transformers`` library that can generate.
    count : int
        Number of sequences.
    length : int
        Tokens in a sequence, at least 2.
    prompts : Tensor of int64, shape (count, k), optional
        First tokens of the sequences, k < length.
    seed : int, default 0
        Seed of all random tokens.
    cache : bool, default True
        Whether sequences are read from and written to the folder of the cache.

    Returns
    -------
    Tensor of int64, shape (count, length)

    Raises
    ------
    ConfigError
        If the model can't generate, or the sequences are longer than its context.
    """
    check_generates(model, length)
    if not cache:
        return _sampled(model, count, length, seed, prompts)
    state = {name: p for name, p in model.named_parameters() if not p.is_meta}
    facts: dict[str, Any] = {
        "greedy": GREEDY,
        "batch": BATCH,
        "seed": seed,
        "count": count,
        "length": length,
    }
    if prompts is not None:
        facts["prompts"] = tensors_digest({}, {"prompts": prompts})
    key = json_digest([facts, _special_tokens(model), tensors_digest({}, state)])
    path = cache_folder() / f"generated-{key[:12]}.safetensors"
    found = _read(path, key)
    if found is None:
        log.info("generating %d sequences of %d tokens by the dense model", count, length)
        found = _sampled(model, count, length, seed, prompts)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, FORMAT, {"key": key}, {"tokens": found})
    return found


def check_generates(model: nn.Module, length: int) -> None:
    """Refuse a model that can't generate sequences of a length.

    Raises
    ------
    ConfigError
    """
    can = getattr(model, "can_generate", None)
    if not callable(can) or not can():
        raise ConfigError(
            f"generate needs a causal language model that generates text, and the model is "
            f"{type(model).__name__}; leave generate out, and give more samples instead"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and length > context:
        raise ConfigError(
            f"sequences of {length} tokens are to be generated, and the model's context is "
            f"{context}; give shorter samples"
        )


def generate_like(
    samples: Samples, dense: nn.Module | None, loss: Any, count: int, prompt: int, seed: int
) -> Samples:
    """Return generated samples of the length of given ones.

    With ``prompt`` each begins with as many tokens of one of these, from a place drawn at random.

    Raises
    ------
    ConfigError
        If there is no dense model, or the samples are not windows of tokens.
    """
    if dense is None:
        raise ConfigError(
            f"generate = {count} needs the dense model, and this one is pruned already; pass the "
            "dense model (dense)"
        )
    inputs = samples.inputs
    known = isinstance(inputs, dict) and "input_ids" in inputs
    if isinstance(loss, CausalLMLoss) and known and set(inputs) <= {"input_ids", "attention_mask"}:
        length = inputs["input_ids"].shape[1]
        prompts = prompts_from(inputs, count, prompt, seed) if prompt else None
        tokens = generate(dense, count, length, prompts=prompts, seed=seed)
        tokens = tokens.to(samples.targets.device)
        more = {name: torch.ones_like(tokens).to(values) for name, values in inputs.items()}
        more["input_ids"] = tokens
        return Samples(more, tokens)
    check_generates(dense, 2)
    raise ConfigError(
        f"generate = {count} needs samples of input_ids (and attention_mask) with "
        "icbs.lm.CausalLMLoss; leave generate out, or pass such samples"
    )


def prompts_from(inputs: Mapping[str, Tensor], count: int, size: int, seed: int) -> Tensor:
    """Return pieces of samples, from places drawn at random, shape (count, size).

    Parameters
    ----------
    inputs : mapping of str to Tensor
        ``input_ids``, and ``attention_mask`` if there is padding, shape (samples, length).
    count : int
    size : int
        Tokens in a piece.
    seed : int

    Raises
    ------
    ConfigError
        If no sample is longer than a piece.
    """
    tokens = inputs["input_ids"]
    mask = inputs.get("attention_mask", torch.ones_like(tokens)).bool().cpu()
    pieces = tokens.unfold(1, min(size, tokens.shape[1]), 1)
    whole = mask.unfold(1, min(size, tokens.shape[1]), 1).all(dim=2).nonzero()
    if size >= tokens.shape[1] or not len(whole):
        raise ConfigError(
            f"prompt = {size} tokens, and the samples have at most "
            f"{int(mask.sum(dim=1).max())}; take a shorter prompt"
        )
    generator = streams.recovery(seed, PROMPTS)
    rows, starts = whole[torch.randint(len(whole), (count,), generator=generator)].T
    return pieces[rows, starts].clone()


@torch.no_grad()
def _sampled(model: Any, count: int, length: int, seed: int, prompts: Tensor | None) -> Tensor:
    """Generate sequences, each batch from its own random numbers."""
    device, found = next(model.parameters()).device, []
    greedy = min(GREEDY, length - 1)
    ends = _special_tokens(model)
    allowed = torch.tensor([t for t in range(model.config.vocab_size) if t not in ends])
    for number, start in enumerate(range(0, count, BATCH)):
        generator = streams.recovery(seed, number)
        size = min(BATCH, count - start)
        first = allowed[torch.randint(len(allowed), (size, 1), generator=generator)]
        sampled = int(torch.randint(1 << 62, (), generator=generator))
        with _default_settings(model):
            if prompts is None:
                tokens = _continued(model, first.to(device), greedy, ends, do_sample=False)
            else:
                tokens = prompts[start : start + size].to(device)
            rest = length - tokens.shape[1]
            if rest:
                devices = [device] if device.type == "cuda" else []
                with torch.random.fork_rng(devices=devices):
                    torch.manual_seed(sampled)
                    tokens = _continued(model, tokens, rest, ends, do_sample=True, top_k=0)
        found.append(tokens.cpu())
    return torch.cat(found)


@contextmanager
def _default_settings(model: Any) -> Iterator[None]:
    """Replace the model's settings of generation, which complete those of a call, by defaults."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _continued(model: Any, tokens: Tensor, count: int, ends: list[int], **how: Any) -> Tensor:
    """Append tokens to sequences of equal length, none of them special."""
    return model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        min_new_tokens=count,
        max_new_tokens=count,
        suppress_tokens=ends or None,
        pad_token_id=ends[0] if ends else 0,
        **how,
    )


def _special_tokens(model: Any) -> list[int]:
    """Return the tokens that begin or end a text."""
    found: set[int] = set()
    for config in (model.config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(config, name, None)
            found |= {token} if isinstance(token, int) else set(token or [])
    return sorted(token for token in found if 0 <= token < model.config.vocab_size)


def _read(path: Path, key: str) -> Tensor | None:
    """Read cached sequences; None if there are none, or the file is damaged."""
    if not path.exists():
        return None
    try:
        with open_tensors(path, "file of generated samples", FORMAT) as (tensors, facts):
            return tensors["tokens"].clone() if facts["key"] == key else None
    except RunFolderError as error:
        log.warning("%s; the samples are generated again", error)
        return None
