"""Small untrained models of several architectures, built without a hub."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
BERT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


class Wrapped(nn.Module):
    """A language model as a part of another module."""

    def __init__(self, lm: nn.Module, **options: Any) -> None:
        super().__init__()
        self.lm, self.options = lm, options

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.lm(input_ids=input_ids, **self.options).logits


def make(name: str) -> nn.Module:
    """Build a model in evaluation mode with fixed weights."""
    import transformers as t

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    seq2seq = {"encoder_layers": 2, "decoder_layers": 3, "d_model": 16}
    seq2seq |= {
        f"{side}_{part}": n
        for side in ("encoder", "decoder")
        for part, n in (("attention_heads", 2), ("ffn_dim", 24))
    }
    makers = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**TEXT)),
        "llava": lambda: t.LlavaForConditionalGeneration(
            t.LlavaConfig(
                text_config=t.LlamaConfig(**TEXT),
                vision_config=t.CLIPVisionConfig(**VISION),
                image_token_index=63,
            )
        ),
        "mistral3": lambda: t.Mistral3ForConditionalGeneration(
            t.Mistral3Config(
                text_config=t.MistralConfig(**TEXT, head_dim=8),
                vision_config=t.PixtralVisionConfig(**VISION),
                image_token_index=63,
            )
        ),
        "gemma3": lambda: t.Gemma3ForConditionalGeneration(
            t.Gemma3Config(
                text_config=t.Gemma3TextConfig(**TEXT, head_dim=8, sliding_window=4),
                vision_config=t.SiglipVisionConfig(**VISION),
                mm_tokens_per_image=4,
            )
        ),
        "qwen2-vl": lambda: t.Qwen2VLForConditionalGeneration(
            t.Qwen2VLConfig(
                text_config=TEXT | {"rope_parameters": rope},
                vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
            )
        ),
        "bert2bert": lambda: t.EncoderDecoderModel(
            encoder=t.BertModel(t.BertConfig(**BERT), add_pooling_layer=False),
            decoder=t.BertLMHeadModel(
                t.BertConfig(
                    **BERT | {"num_hidden_layers": 3}, is_decoder=True, add_cross_attention=True
                )
            ),
        ),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=64,
                d_model=16,
                d_kv=4,
                d_ff=24,
                num_layers=2,
                num_decoder_layers=3,
                num_heads=4,
                decoder_start_token_id=0,
            )
        ),
        "bart": lambda: t.BartForConditionalGeneration(
            t.BartConfig(vocab_size=64, max_position_embeddings=64, **seq2seq)
        ),
        "mamba": lambda: t.MambaForCausalLM(
            t.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=3, state_size=4)
        ),
        "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**TEXT)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = makers[name]().eval()
        # Random weights of the usual size hardly mix: make what follows depend on what precedes.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
    return model.double()
