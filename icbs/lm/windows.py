"""Texts packed into token windows of one length: nothing is padded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from icbs.errors import DataError


def pack(
    texts: Iterable[str],
    tokenizer: Any,
    length: int,
    *,
    windows: int | None = None,
    apart: bool = True,
) -> Tensor:
    """Tokenise texts and lay them end to end into windows.

    Texts are separated by the tokenizer's end-of-text token, if it has one; no other special
    token is added, and no padding token is needed.

    Parameters
    ----------
    texts : iterable of str
        Read only as far as needed.
    tokenizer
        Of the ``transformers`` library.
    length : int
        Tokens in a window, at least 2.
    windows : int, optional
        How many to make at most; all that the texts give if None.
    apart : bool, default True
        No two windows share a text: the rest of a text that a window cuts off is dropped, so
        that splitting windows splits texts. If False nothing is dropped but the last tokens.

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
    held: list[int] = []
    total = count = 0
    for text in texts:
        tokens = _tokens(text, tokenizer)
        count, total = count + 1, total + len(tokens)
        held += tokens
        while len(held) >= length:
            found.append(held[:length])
            held = [] if apart else held[length:]
        if windows is not None and len(found) >= windows:
            break
    if not found:
        raise DataError(
            f"{count} texts of {total} tokens in all are shorter than one window of {length}: "
            "give more text, or a smaller length"
        )
    return torch.tensor(found[:windows])


def batches_of(windows: Tensor, size: int = 64) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Make ``(inputs, labels)`` batches for :meth:`icbs.Pruner.prune`; labels are the tokens."""
    return [({"input_ids": part}, part) for part in windows.split(size)]


def check_windows(model: Any, windows: Tensor) -> None:
    """Refuse windows that a model of the ``transformers`` library can't take.

    Raises
    ------
    DataError
        If they are longer than its context, or hold tokens that it does not know.
    """
    length, highest = windows.shape[1], int(windows.max())
    config = getattr(model, "config", None)
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and length > context:
        raise DataError(f"length = {length}: the model takes at most {context} tokens")
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is not None and highest >= vocabulary:
        raise DataError(
            f"the tokenizer gives token {highest}, and the model knows {vocabulary}: "
            "use the tokenizer that belongs to the model"
        )


def _tokens(text: str, tokenizer: Any) -> list[int]:
    # verbose=False: a text longer than the context is cut into windows anyway.
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    return [*tokens, end] if end is not None else list(tokens)
