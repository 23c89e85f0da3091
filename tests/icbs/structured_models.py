"""Small models of the architectures that can be cut, and their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IMAGE: dict[str, Any] = {"image_size": 16, "patch_size": 4, "num_channels": 3}


class Residual(nn.Module):
    """A stem, an inverted bottleneck with a skip connection, and a linear layer over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.expand, self.norm1 = nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12)
        self.depthwise, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12)
        self.project, self.norm3 = nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8)
        self.pool, self.out = nn.AdaptiveAvgPool2d(2), nn.Linear(8 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.stem(images)).relu()
        y = self.norm1(self.expand(x)).relu()
        y = self.norm2(self.depthwise(y)).relu()
        x = x + self.norm3(self.project(y))
        return self.out(self.pool(x).flatten(1))


class Gated(nn.Module):
    """A gated unit whose halves are outputs of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Linear(6, 20), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.both(x).chunk(2, -1)
        return self.out(values * gate.sigmoid())


class Shared(nn.Module):
    """A hidden layer that is used twice, and one that is used once."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once, self.out = nn.Linear(6, 6), nn.Linear(6, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.once(self.twice(self.twice(x).relu()).relu()).relu())


class Joined(nn.Module):
    """Two layers whose outputs are concatenated, one of them read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 4)
        self.out, self.more = nn.Linear(9, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        return self.out(torch.cat([first, self.second(x).tanh()], -1)) + self.more(first)


def transformers_model(name: str) -> nn.Module:
    import transformers as t

    text = {k: v for k, v in SIZES.items() if k != "bos_token_id"}
    makers: dict[str, Any] = {
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**text)),
        "distilbert": lambda: t.DistilBertForSequenceClassification(
            t.DistilBertConfig(
                vocab_size=50, dim=24, hidden_dim=40, n_layers=3, n_heads=4,
                max_position_embeddings=32,
            )
        ),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**SIZES, **IMAGE)),
        "deit": lambda: t.DeiTForImageClassification(t.DeiTConfig(**SIZES, **IMAGE)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=50, n_positions=32, n_embd=24, n_layer=3, n_head=4, bos_token_id=1,
                eos_token_id=2,
            )
        ),
        "llama": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(
                **SIZES | {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4},
                tie_word_embeddings=True,
            )
        ),
        "qwen2": lambda: t.Qwen2ForCausalLM(
            t.Qwen2Config(**SIZES | {"num_attention_heads": 6, "num_key_value_heads": 3})
        ),
    }  # fmt: skip
    return makers[name]()


TRANSFORMERS = ("bert", "distilbert", "vit", "deit", "gpt2", "llama", "qwen2")
PLAIN: dict[str, Any] = {
    "mlp": lambda: nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 7), nn.Linear(7, 3)),
    "residual": Residual,
    "gated": Gated,
    "joined": Joined,
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), 2, enable_nested_tensor=False
    ),
}


def make(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    """Return a model in float64 and evaluation mode, with all values random, and inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers_model(name) if name in TRANSFORMERS else PLAIN[name]()
        model = model.double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2)
        if name in ("vit", "deit"):
            return model, {"pixel_values": torch.randn(2, 3, 16, 16).double()}
        if name in TRANSFORMERS:
            return model, {"input_ids": torch.randint(50, (2, 7))}
        if name == "residual":
            return model, torch.randn(2, 3, 8, 8).double()
        if name == "encoder":
            return model, torch.randn(2, 5, 6).double()
        return model, torch.randn(4, 6).double()


class FixedSizes(nn.Module):
    """A small LeNet with the sizes of its tensors in its code, as in many tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3, padding=1)
        self.wide, self.out = nn.Linear(16 * 2 * 2, 24), nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.first(images).relu(), 2)
        x = nn.functional.max_pool2d(self.second(x).relu(), 2)
        return self.out(self.wide(x.view(-1, 16 * 2 * 2)).relu())


class Unflattened(nn.Module):
    """Outputs of a linear layer that become images of a fixed number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.images, self.out = (
            nn.Linear(6, 64), nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 5)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.images(self.wide(x).relu().view(-1, 4, 4, 4)).relu().mean((2, 3)))


class Scaled(nn.Module):
    """Activations that are divided by the root of their number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.out(self.second(x / x.shape[-1] ** 0.5).relu())


class Shuffled(nn.Module):
    """A pixel shuffle, which makes a quarter of the channels, and a channel that is followed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shuffle = nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2)
        self.second, self.out = nn.Conv2d(2, 8, 1), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.shuffle(self.first(images).relu())
        return self.out(self.second(x).relu().mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent network between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cells = nn.Linear(8, 16), nn.LSTM(16, 12, batch_first=True)
        self.second, self.out = nn.Linear(12, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.cells(self.first(x).relu())[0][:, -1]).relu())
