"""The task of headlines; its trained encoder is used where it is in the cache."""

from __future__ import annotations

import pytest
import torch

from icbs.downloads import cache_folder
from icbs.downloads.catalogue import DISTRIBUTIONS
from icbs.downloads.wheels import EVALS, MINILM
from icbs.errors import DataError
from icbs.zoo import BUILTIN, load_task
from icbs.zoo.sarcasm import headlines, trimmed

needs_texts = pytest.mark.skipif(not EVALS.path.exists(), reason="icbs fetch sarcasm")


def test_it_is_in_the_catalogue() -> None:
    assert DISTRIBUTIONS["sarcasm"] == (MINILM, EVALS)
    assert DISTRIBUTIONS["minilm"] == (MINILM,)
    assert "sarcasm" in BUILTIN


def test_padding_of_all_texts_is_removed() -> None:
    tokens = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0]])
    found = trimmed({"input_ids": tokens, "attention_mask": (tokens > 0).long()})
    assert found["input_ids"].tolist() == [[5, 6, 0], [7, 8, 9]]


@needs_texts
def test_headlines_have_two_labels() -> None:
    texts, labels = headlines()
    assert len(texts) == len(labels) > 25_000
    assert set(labels.tolist()) == {0, 1}
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="samples=5000"):
        load_task("sarcasm", samples=5000)


@pytest.mark.slow
@needs_texts
@pytest.mark.skipif(not list(cache_folder().glob("sarcasm-*")), reason="not trained yet")
def test_the_encoder_is_accurate() -> None:
    task = load_task("sarcasm")
    assert task.evaluate(task.model)["accuracy"] > 0.83
