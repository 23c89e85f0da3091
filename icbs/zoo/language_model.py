"""A causal language model, pruned on some texts and evaluated by its perplexity on others."""

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

MAX_TEXTS = 20_000
"""Number of texts read from one source, which may be an endless stream."""


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
        Sources of texts for pruning and for testing; see :func:`icbs.lm.read_texts`. Without
        ``test_text``, a share of the texts of ``text`` is used for testing; otherwise texts of
        ``test_text`` with 13 consecutive words in common with those of ``text`` are left out.
    length : int
        Tokens in a window. Windows are packed without padding, and no two share a text, so that
        gradients and acceptance use different texts.
    samples : int
        Largest number of windows for pruning.
    test_samples : int
        Largest number of windows for testing.
    test_share : float
        Share of the texts used for testing without ``test_text``.
    field : str, optional
        Field of a record that contains the text.
    seed : int
        Seed of the shuffling of texts.
    dtype : str
        Type of the weights.
    device_map : optional
        Argument of ``from_pretrained``.
    layers : int, optional
        Number of decoder blocks to keep, from the first; makes a small model for experiments.

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
    """Remove all but the first decoder blocks of a model, in place.

    Raises
    ------
    DataError
        If the model has no list of decoder blocks in ``model.layers``, or not enough blocks.
    """
    blocks = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(blocks, nn.ModuleList) or not 1 <= layers <= len(blocks):
        count = len(blocks) if isinstance(blocks, nn.ModuleList) else "no list of"
        raise DataError(f"layers = {layers}: the model has {count} decoder blocks")
    model.model.layers = blocks[:layers]
    model.config.num_hidden_layers = layers


def _texts(
    text: str, test_text: str | None, field: str | None, test_share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Return shuffled texts for pruning and for testing, without overlap."""
    own = list(islice(read_texts(text, field), MAX_TEXTS))
    if test_text is None:
        return split_texts(own, test_share, seed)
    other = without_overlap(islice(read_texts(test_text, field), MAX_TEXTS), own)
    if not other:
        raise DataError(
            f"every text of {test_text!r} overlaps with those of {text!r}; give another test_text"
        )
    return shuffled(own, seed), shuffled(other, seed)
