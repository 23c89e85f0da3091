"""Heads of attention: a small table of the names that projections have in known modules.

A group is a head of keys and values with all queries that use it: one head usually, several
query heads with grouped-query attention (arXiv 2305.13245).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icbs.structure.dimension import Dimension, Slice
from icbs.structure.matrices import inputs_of, outputs_of


@dataclass(frozen=True)
class Projections:
    """Names of the projections of a kind of attention, relative to its module."""

    inputs: tuple[str, ...]
    """Queries, keys and values; or one name if they are one module, in this order."""
    output: str
    """The projection of the joined heads; with ``../`` if it is in the parent module."""


KNOWN = (
    Projections(("q_proj", "k_proj", "v_proj"), "o_proj"),  # LLaMA, ViT and DeiT
    Projections(("q_proj", "k_proj", "v_proj"), "out_proj"),  # OPT, CLIP, BART
    Projections(("q_proj", "k_proj", "v_proj"), "dense"),  # Phi
    Projections(("q", "k", "v"), "o"),  # T5, MPNet: left whole where a bias has their positions
    Projections(("query", "key", "value"), "../output.dense"),  # BERT, RoBERTa
    Projections(("q_lin", "k_lin", "v_lin"), "out_lin"),  # DistilBERT
    Projections(("c_attn",), "c_proj"),  # GPT-2
    Projections(("qkv",), "proj"),  # timm
)
HEAD_SIZES = ("head_dim", "attention_head_size", "attention_head_dim")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
WIDTHS = ("all_head_size", "split_size", "attn_dim", "inner_dim")
"""Attributes that hold heads × size of a head in known modules."""


@dataclass(frozen=True)
class Attention:
    """The attention of one layer of a model."""

    name: str
    """Name of the module that holds the projections of the inputs."""
    queries: str
    keys: str
    values: str
    """Names of the projections; equal if they are one module."""
    output: str
    """Name of the projection of the joined heads."""
    size: int
    """Channels of a head."""
    heads: int
    """Heads of queries."""
    groups: int
    """Heads of keys and values."""
    entries: tuple[str, ...] = ()
    """Other parameters with an entry per head, such as biases of relative positions."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all projections, each once."""
        return tuple(dict.fromkeys((self.queries, self.keys, self.values, self.output)))

    def dimension(self) -> Dimension:
        """Return the heads as a dimension."""
        queries = torch.arange(self.heads * self.size).view(self.groups, -1)
        keys = torch.arange(self.groups * self.size).view(self.groups, -1)
        writers: tuple[Slice, ...]
        if self.queries == self.keys:
            width = self.heads * self.size
            writers = (Slice(self.queries, _joined(queries, keys + width, keys + 2 * width)),)
        else:
            writers = (
                Slice(self.queries, queries),
                Slice(self.keys, keys),
                Slice(self.values, keys.clone()),
            )
        reader = Slice(self.output, queries.clone())
        return Dimension(f"{self.name} heads", "heads", self.groups, (reader,), writers)


def _joined(*indices: Tensor) -> Tensor:
    return torch.cat(indices, 1)


def attentions(model: nn.Module) -> Iterator[Attention]:
    """Yield the attention modules whose names are in the table, in the model's order."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if (found := attention_of(name, module, modules)) is not None:
            yield found


def attention_of(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> Attention | None:
    """Return the projections of an attention module; None if it is not a known one."""
    for known in KNOWN:
        parts = [_path(name, part) for part in (*known.inputs, known.output)]
        if not all(part in modules and inputs_of(modules[part]) for part in parts):
            continue
        queries, keys, values = parts[:-1] if len(parts) == 4 else [parts[0]] * 3
        read = inputs_of(modules[parts[-1]])
        size = _first(module, HEAD_SIZES)
        if size is None:
            count = _first(module, HEADS) or _first(getattr(module, "config", None), HEADS)
            size = read // count if count and read % count == 0 else None
        if not size or read % size:
            continue
        written = outputs_of(modules[keys])
        width = written // 3 if queries == keys else written
        if width % size or read % width or outputs_of(modules[queries]) not in (read, 3 * read):
            continue
        heads, groups = read // size, width // size
        entries = _entries(name, module, parts, heads, size)
        return Attention(name, queries, keys, values, parts[-1], size, heads, groups, entries)
    return None


def _entries(
    name: str, module: nn.Module, projections: list[str], heads: int, size: int
) -> tuple[str, ...]:
    """Return the parameters besides the projections that have an entry per head or channel."""
    found = []
    for own, parameter in module.named_parameters():
        full = _path(name, own)
        if full.rpartition(".")[0] in projections or parameter.shape == (size,):
            continue  # an entry per channel of a head serves all heads
        if {heads, heads * size}.intersection(parameter.shape):
            found.append(full)
    return tuple(found)


def _path(name: str, part: str) -> str:
    if part.startswith("../"):
        name, part = name.rpartition(".")[0], part.removeprefix("../")
    return f"{name}.{part}" if name else part


def _first(owner: object, names: tuple[str, ...]) -> int | None:
    """Return the first of several attributes that is a positive number."""
    for name in names:
        value = getattr(owner, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
