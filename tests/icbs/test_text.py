"""Texts, windows and perplexity."""

from __future__ import annotations

import json
import math
import os
from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icbs import DataError, ModelError
from icbs.data.losses import CausalLMLoss
from icbs.lm import (
    Perplexity,
    batches_of,
    load_language_model,
    pack_windows,
    perplexity,
    read_texts,
    split_texts,
)
from icbs.lm.corpora import is_english, without_overlap
from icbs.lm.windows import check_windows
from tests.icbs.language import make_language_model, make_texts, make_tokenizer, save

TOKENIZER = make_tokenizer()
texts = st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=40), max_size=30)


def tokens(found: list[str]) -> list[list[int]]:
    return [[*TOKENIZER(t)["input_ids"], TOKENIZER.eos_token_id] for t in found]


@given(texts, st.integers(2, 24))
def test_without_gaps_windows_hold_the_texts_end_to_end(found, length):
    stream = list(chain.from_iterable(tokens(found)))
    if len(stream) < length:
        with pytest.raises(DataError, match=f"shorter than one window of {length}"):
            pack_windows(found, TOKENIZER, length, apart=False)
        return
    windows = pack_windows(found, TOKENIZER, length, apart=False)
    assert windows.shape == (len(stream) // length, length)
    assert windows.flatten().tolist() == stream[: windows.numel()]


@given(texts, st.integers(2, 24))
def test_windows_share_no_text_by_default(found, length):
    # Each text is told by its own token.
    marked = [[i] * len(own) for i, own in enumerate(tokens(found))]
    packed = iter(marked)

    class Marker:
        eos_token_id = None

        def __call__(self, text, **_):
            return {"input_ids": next(packed)}

    if sum(map(len, marked)) < length:
        return
    windows = pack_windows(found, Marker(), length).tolist()
    owners = [set(window) for window in windows]
    assert all(a.isdisjoint(b) for a, b in pairwise(owners))
    assert all(window == sorted(window) for window in windows)


def test_windows_are_read_only_as_far_as_needed():
    def endless():
        while True:
            yield "a red fox"

    assert pack_windows(endless(), TOKENIZER, 16, windows=5).shape == (5, 16)


def test_an_error_for_short_texts_gives_their_number():
    with pytest.raises(DataError, match="2 texts of 6 tokens in all are shorter than one window"):
        pack_windows(["ab", "cd"], TOKENIZER, 32)
    with pytest.raises(DataError, match="length = 1"):
        pack_windows(["ab"], TOKENIZER, 1)


def test_batches_hold_every_window_once_with_itself_as_labels():
    windows = torch.arange(70).view(10, 7)
    batches = batches_of(windows, 4)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([inputs["input_ids"] for inputs, _ in batches]), windows)
    assert torch.equal(torch.cat([labels for _, labels in batches]), windows)


@given(st.integers(2, 50), st.floats(0, 1), st.integers(0, 5))
def test_splits_are_disjoint_and_whole(count, share, seed):
    found = [str(i) for i in range(count)]
    own, other = split_texts(found, share, seed)
    assert own
    assert other
    assert sorted(own + other) == sorted(found)
    assert (own, other) == split_texts(found, share, seed)


def test_one_text_can_not_be_split():
    with pytest.raises(DataError, match="1 text can't be split"):
        split_texts(["one"], 0.5)


def test_texts_of_files_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nlines\n\n\n\none\n")
    assert list(read_texts(tmp_path / "a.txt")) == ["one", "two\nlines"]
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"text": "three\u2028four", "id": "7"}) + "\n\n" + json.dumps({"text": "five"})
    )
    assert list(read_texts(tmp_path / "b.jsonl")) == ["three\u2028four", "five"]
    assert list(read_texts(tmp_path / "b.jsonl", field="text")) == ["three\u2028four", "five"]
    assert len(list(read_texts(tmp_path))) == 3
    (tmp_path / "c.jsonl").write_text('{"0": "only"}\n{"0": "only"}\n')
    assert list(read_texts(tmp_path / "c.jsonl")) == ["only"]


def test_texts_of_a_data_set(tmp_path):
    (tmp_path / "data").mkdir()
    lines = [json.dumps({"text": text}) for text in ("one", "two", "two")]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines))
    assert list(read_texts(f"datasets:{tmp_path / 'data'}@train")) == ["one", "two"]
    with pytest.raises(DataError, match="can't be loaded"):
        list(read_texts(f"datasets:{tmp_path / 'data'}@nothing"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"text": 3}', "line 1 of .* has no text in the field 'text'; its text fields are: none"),
        ('{"a": "x", "b": "y"}', "its text fields are: a, b"),
        ('{"text": "x"}\nno', "line 2 of .* is not JSON"),
        ("[1]", "line 1 of .* is list, not an object"),
    ],
)
def test_damaged_records_are_named(tmp_path, content, match):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=match):
        list(read_texts(tmp_path / "a.jsonl"))


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="not a file, a folder or one of wikipedia"):
        list(read_texts(tmp_path / "absent.txt"))
    with pytest.raises(DataError, match=r"has no .txt"):
        list(read_texts(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="can't be read as UTF-8"):
        list(read_texts(tmp_path / "latin.txt"))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("[" * 100_000, "line 1 of .* is not JSON"),
        ('{"text": ' + "9" * 10_000 + "}", "line 1 of .* is not JSON"),
        ('{"text": "\\ud800 half"}', "the text of line 1 of .* is not Unicode: surrogates"),
    ],
)
def test_hostile_lines_are_named(tmp_path, line, match):
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(DataError, match=match):
        list(read_texts(tmp_path / "a.jsonl"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_regular_files_of_a_folder_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "c.jsonl").symlink_to("/dev/zero")
    (tmp_path / "d.txt").mkdir()
    assert list(read_texts(tmp_path)) == ["one"]
    for name in ("b.txt", "c.jsonl"):
        with pytest.raises(DataError, match="is not a file"):
            list(read_texts(tmp_path / name))


def test_scripts_of_a_data_set_are_not_run(tmp_path):
    (tmp_path / "data").mkdir()
    code = f"open({str(tmp_path / 'was-run')!r}, 'w').close()\n"
    (tmp_path / "data" / "data.py").write_text(code)
    with pytest.raises(DataError, match="can't be loaded"):
        list(read_texts(f"datasets:{tmp_path / 'data'}"))
    assert not (tmp_path / "was-run").exists()


def test_sources_are_joined(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}\n\nof both")
    joined = read_texts(f"{tmp_path / 'a.txt'}+{tmp_path / 'b.txt'}")
    assert list(joined) == ["text of a", "of both", "text of b"]


def test_thirteen_words_in_a_row_are_an_overlap():
    words = [str(i) for i in range(40)]
    known = [" ".join(words)]
    twelve, thirteen = [" ".join(["x", *words[3 : 3 + n], "y"]) for n in (12, 13)]
    assert without_overlap([twelve, thirteen, "0 1 2", "x"], [*known, "x"]) == [twelve, "0 1 2"]


def test_english_is_distinguished_from_similar_languages():
    assert is_english("The fox and the hen ran to the old barn with a friend.")
    assert not is_english("Der Fuchs und die Henne liefen zu der alten Scheune.")
    assert not is_english("")


def test_perplexity_is_that_of_the_model():
    model = make_language_model()
    windows = pack_windows(make_texts(), TOKENIZER, 24)
    found = perplexity(model, windows, batch_size=5)
    with torch.no_grad():
        shares = model(windows).logits[:, :-1].double().log_softmax(-1)
    losses = -shares.gather(2, windows[:, 1:, None]).squeeze(2).mean(dim=1)
    assert torch.allclose(found.losses, losses, atol=1e-5)
    assert found.value == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    assert 200 < found.value < 320  # untrained: near the 257 of a uniform guess


def test_standard_errors_are_those_of_theory():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(400, generator=generator, dtype=torch.float64)
    small = 0.01 * torch.randn(400, generator=generator, dtype=torch.float64)
    a, b = Perplexity(3 + base), Perplexity(3.1 + base + small)
    theory = a.value * float(a.losses.std()) / 20
    assert a.error == pytest.approx(theory, rel=0.1)
    gain, error = a.gain(b)
    assert gain == pytest.approx(0.1 + float(small.mean()), abs=1e-9)
    assert error == pytest.approx(0.01 / 20, rel=0.15)
    with pytest.raises(DataError, match="in pairs"):
        a.gain(Perplexity(base[:3]))


def test_a_folder_loads_as_it_was_saved(tmp_path):
    folder = save(tmp_path / "model")
    model, tokenizer = load_language_model(folder)
    assert not model.training
    assert tokenizer.pad_token is None
    for name, value in make_language_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    half, _ = load_language_model(folder, dtype="bfloat16")
    assert half.dtype == torch.bfloat16


def test_models_that_can_not_be_loaded(tmp_path):
    with pytest.raises(ModelError, match="'no/such-model' can't be loaded"):
        load_language_model("no/such-model")
    with pytest.raises(ModelError, match=r"absent\.gguf is not a file"):
        load_language_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="dtype 'int8'"):
        load_language_model(save(tmp_path / "model"), dtype="int8")
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't be loaded"):
        load_language_model(tmp_path / "model")


BERT = {
    "vocab_size": 257,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("BertModel", {}, r"lacks weights of BertLMHeadModel.*random: cls.*\(6 in all\)"),
        ("BertForSequenceClassification", {}, "lacks weights of BertLMHeadModel.*random"),
        ("BertForMaskedLM", {}, "is not causal: the logits of BertLMHeadModel depend on"),
        ("BertLMHeadModel", {"is_decoder": True}, None),
    ],
)
def test_encoders_are_refused(tmp_path, kind, settings, message):
    """With a newly initialised head, or attention to later tokens."""
    import transformers

    config = transformers.BertConfig(**BERT, **settings)
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    if message is None:
        assert load_language_model(tmp_path)[0].config.is_decoder
        return
    with pytest.raises(ModelError, match=message):
        load_language_model(tmp_path)


@pytest.mark.parametrize("tied", [False, True])
def test_a_missing_head_is_random_unless_it_is_tied(tmp_path, tied):
    model = make_language_model()
    model.config.tie_word_embeddings = tied
    model.model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    if not tied:
        with pytest.raises(ModelError, match=r"LlamaForCausalLM.*random: lm_head\.weight;"):
            load_language_model(tmp_path)
        return
    found, _ = load_language_model(tmp_path)
    assert torch.equal(found.lm_head.weight, model.model.embed_tokens.weight)


def test_a_checkpoint_of_another_size_is_always_refused(tmp_path):
    folder = save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(ModelError, match="mlp"):
        load_language_model(folder, ignore_mismatched_sizes=True)
    with pytest.raises(ModelError, match="can't be loaded"):
        load_language_model(folder)


def test_windows_that_a_model_can_not_take():
    model = make_language_model(context=16)
    with pytest.raises(DataError, match="length = 17: the model allows at most 16"):
        check_windows(model, torch.zeros(2, 17, dtype=torch.long))
    with pytest.raises(DataError, match="token 300, but the model has a vocabulary of 257"):
        check_windows(model, torch.full((2, 8), 300))


def test_loss_of_the_library_itself_agrees():
    model = make_language_model()
    windows = pack_windows(make_texts(), TOKENIZER, 24)[:6]
    with torch.no_grad():
        theirs = model(windows, labels=windows)
    assert float(CausalLMLoss()(theirs, windows)) == pytest.approx(float(theirs.loss), rel=1e-5)
