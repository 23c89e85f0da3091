"""A causal language model: pruned on some texts, judged by its perplexity on others."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from icbs.data.losses import CausalLMLoss
from icbs.errors import DataError
from icbs.formatting import counted
from icbs.lm.corpora import read_texts, shuffled, split_texts, without_overlap
from icbs.lm.loading import load_language_model
from icbs.lm.perplexity import perplexity
from icbs.lm.windows import batches_of, check_windows, pack_windows
from icbs.zoo.task import Count, Seed, Task

MOST_TEXTS = 20_000
"""Texts read of one source, which may be a stream without end."""


def load(
    model: str = "smollm2-135m",
    text: str = "wikipedia",
    test_text: str | None = None,
    *,
    length: Annotated[int, Field(ge=2, lt=1 << 31)] = 512,
    samples: Count = 256,
    test_samples: Count = 40,
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    field: str | None = None,
    seed: Seed = 0,
    dtype: str = "float32",
    device_map: str | int | dict[str, str | int] | None = None,
    layers: Count | None = None,
) -> Task:
    """Load the task.

    Parameters
    ----------
    model : str
        See :func:`icbs.lm.load_language_model`.
    text, test_text : str
        What the model is pruned and judged on; see :func:`icbs.lm.read_texts`. Without a
        ``test_text`` a share of the texts of ``text`` is kept for it; texts of ``test_text``
        that share 13 words in a row with those of ``text`` are left out.
    length : int
        Tokens in a window; windows are packed, never padded, and no two share a text, so
        that gradients and acceptance see different texts too.
    samples : int
        Windows for pruning, at most.
    test_samples : int
        Windows for the perplexity, at most.
    test_share : float
        Of the texts, kept for testing where there is no ``test_text``.
    field : str, optional
        Which field of a record holds the text.
    seed : int
        Of the shuffling of texts.
    dtype : str
        Of the weights.
    device_map : optional
        As for ``from_pretrained``.
    layers : int, optional
        Keep so many of the first decoder blocks: a small model to try things on.

    Raises
    ------
    ModelError, MissingPackageError
        See :func:`icbs.lm.load_language_model`.
    DataError
        If the texts are too short, or the windows too long for the model.
    """
    own, other = _texts(text, test_text, field, test_share, seed)
    network, tokenizer = load_language_model(model, dtype=dtype, device_map=device_map)
    if layers is not None:
        cut(network, layers)
    windows = pack_windows(own, tokenizer, length, windows=samples)
    test_windows = pack_windows(other, tokenizer, length, windows=test_samples)
    for found in (windows, test_windows):
        check_windows(network, found)

    def losses(candidate: nn.Module) -> Tensor:
        return perplexity(candidate, test_windows).losses

    def evaluate(candidate: nn.Module) -> dict[str, float]:
        found = perplexity(candidate, test_windows)
        return {
            "loss": found.loss,
            "loss_standard_error": found.loss_error,
            "perplexity": found.value,
            "perplexity_standard_error": found.error,
        }

    return Task(
        "language_model",
        network,
        batches_of(windows),
        CausalLMLoss(),
        evaluate,
        tokenizer=tokenizer,
        losses=losses,
        about=f"{counted(len(windows), 'window')} of {counted(length, 'token')} for pruning, "
        f"{len(test_windows)} for testing",
    )


def cut(model: Any, layers: int) -> None:
    """Drop all but the first decoder blocks of a model, in place.

    Raises
    ------
    DataError
        If it has no list of decoder blocks where most models of ``transformers`` have it.
    """
    blocks = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(blocks, nn.ModuleList) or not 1 <= layers <= len(blocks):
        have = len(blocks) if isinstance(blocks, nn.ModuleList) else "no list of"
        raise DataError(f"layers = {layers}: the model has {have} decoder blocks")
    model.model.layers = blocks[:layers]
    model.config.num_hidden_layers = layers


def _texts(
    text: str, test_text: str | None, field: str | None, test_share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Texts to prune on and texts to test on, shuffled, none in both."""
    own = list(islice(read_texts(text, field), MOST_TEXTS))
    if test_text is None:
        return split_texts(own, test_share, seed)
    other = without_overlap(islice(read_texts(test_text, field), MOST_TEXTS), own)
    if not other:
        raise DataError(f"every text of {test_text!r} overlaps with those of {text!r}")
    return shuffled(own, seed), shuffled(other, seed)
