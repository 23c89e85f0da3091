"""Packing of texts into token windows of equal length, without padding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from icbs.errors import DataError


def pack_windows(
    texts: Iterable[str],
    tokenizer: Any,
    length: int,
    *,
    windows: int | None = None,
    apart: bool = True,
) -> Tensor:
    """Tokenise texts, concatenate them and cut them into windows.

    Texts are separated by the tokenizer's end-of-text token, if it has one; other special
    tokens and padding are not used.

    Parameters
    ----------
    texts : iterable of str
        Read only as far as needed.
    tokenizer
        Tokenizer of the ``transformers`` library.
    length : int
        Tokens in a window, at least 2.
    windows : int, optional
        Largest number of windows; by default all.
    apart : bool, default True
        Start each window with a new text and drop the rest of the previous one, so that no two
        windows share a text. If False, only tokens after the last window are dropped.

    Returns
    -------
    Tensor of int64, shape (windows, length)

    Raises
    ------
    DataError
        If the texts don't fill one window.
    """
    if length < 2:
        raise DataError(f"length = {length}: a window must hold at least 2 tokens")
    found: list[list[int]] = []
    rest: list[int] = []
    total = count = 0
    for text in texts:
        tokens = _tokens(text, tokenizer)
        count, total = count + 1, total + len(tokens)
        rest += tokens
        while len(rest) >= length:
            found.append(rest[:length])
            rest = [] if apart else rest[length:]
        if windows is not None and len(found) >= windows:
            break
    if not found:
        raise DataError(
            f"{count} texts of {total} tokens in all are shorter than one window of {length}: "
            "give more text, or a smaller length"
        )
    return torch.tensor(found[:windows])


def batches_of(windows: Tensor, size: int = 64) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Return ``(inputs, labels)`` batches for :meth:`icbs.Pruner.prune`; labels are the tokens."""
    return [({"input_ids": part}, part) for part in windows.split(size)]


def check_windows(model: Any, windows: Tensor) -> None:
    """Refuse windows that don't fit a model of the ``transformers`` library.

    Raises
    ------
    DataError
        If they are longer than its context, or have tokens outside its vocabulary.
    """
    length, highest = windows.shape[1], int(windows.max())
    config = getattr(model, "config", None)
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and length > context:
        raise DataError(f"length = {length}: the model allows at most {context} tokens")
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is not None and highest >= vocabulary:
        raise DataError(
            f"the tokenizer gives token {highest}, but the model has a vocabulary of "
            f"{vocabulary}: use the model's own tokenizer"
        )


def _tokens(text: str, tokenizer: Any) -> list[int]:
    # verbose=False: no warning about texts longer than the context, which are cut into windows.
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return [*tokens, end] if end is not None else list(tokens)
