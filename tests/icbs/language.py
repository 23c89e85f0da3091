"""A language model for tests: two blocks, one token per byte."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import torch

os.environ["HF_HUB_OFFLINE"] = "1"

END = "<end>"
WORDS = ("a", "fast", "red", "fox", "and", "the", "slow", "hen", "ran", "to", "my", "old", "barn")


def make_tokenizer() -> Any:
    """Bytes as tokens, an end-of-text token, and no token for padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, END])}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END)


def make_language_model(layers: int = 2, context: int = 128, **settings: Any) -> Any:
    """Return an untrained Llama with a few thousand weights and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=256,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def make_texts(count: int = 60, seed: int = 0) -> list[str]:
    """Sentences of a small language, all different."""
    draw = random.Random(seed)
    return [f"{i} " + " ".join(draw.choices(WORDS, k=draw.randint(4, 30))) for i in range(count)]


def save(folder: Path, **settings: Any) -> Path:
    """Write model and tokenizer for ``from_pretrained``."""
    make_language_model(**settings).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
