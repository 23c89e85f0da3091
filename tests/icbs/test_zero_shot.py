"""Local multiple-choice tasks, and their results with ``lm-eval``."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from icbs import DataError
from icbs.lm import local_tasks, zero_shot
from icbs.lm.corpora import ARTICLES
from icbs.lm.local_tasks import DIALOGUES, LOCAL_TASKS, MOVIES, next_sentences
from tests.icbs.language import make_language_model, make_texts, make_tokenizer

SENTENCE = "This is the sentence number {} of the article {}."


def article(number: int) -> str:
    return "\n".join(SENTENCE.format(i, number) for i in range(5))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small files in the format of BIG-bench, and an empty cache."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    scored = [
        {"input": text, "target_scores": {"fox ": int(i % 2), "hen": int(not i % 2), "owl": 0}}
        for i, text in enumerate(make_texts(20))
    ]
    contents = {
        MOVIES: {"examples": scored},
        DIALOGUES: {"examples": scored},
        ARTICLES: {"examples": [{"input": article(i)} for i in range(12)]},
    }

    class Fake:
        def read(self, members):
            return {name: json.dumps(contents[name]).encode() for name in members}

    monkeypatch.setattr(local_tasks, "BIG_BENCH", Fake())


def test_the_right_sentence_is_among_four_of_different_articles():
    questions = list(next_sentences(article(i) for i in range(12)))
    assert len(questions) == 12
    for number, question in enumerate(questions):
        assert question["context"] == " ".join(SENTENCE.format(i, number) for i in range(2))
        assert question["choices"][question["answer"]] == SENTENCE.format(2, number)
        assert len(set(question["choices"])) == 4
    assert len({question["answer"] for question in questions}) > 1


def test_descriptions_in_the_cache_are_always_rewritten(files):
    """lm-eval runs functions that a description names with !function."""
    folder = local_tasks.write_local_tasks()
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for name in LOCAL_TASKS:
        (folder / f"{name}.yaml").write_text(f"task: {name}\ndoc_to_text: !function os.system\n")
    assert local_tasks.write_local_tasks() == folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


def test_answers_are_scored_by_likelihood(files):
    """Compared with a separate computation for each question."""
    model, tokenizer = make_language_model(), make_tokenizer()
    found = zero_shot(model, tokenizer, limit=8)
    assert found.keys() == set(LOCAL_TASKS)
    for name in LOCAL_TASKS:
        lines = (local_tasks.cache_folder() / "zero-shot" / f"{name}.jsonl").read_text()
        questions = [json.loads(line) for line in lines.splitlines()][:8]
        right = [best(model, tokenizer, q) == q["answer"] for q in questions]
        assert found[name].accuracy == pytest.approx(sum(right) / 8)
        assert found[name].questions == 8
        assert 0 <= found[name].normalised <= 1


@torch.no_grad()
def best(model, tokenizer, question) -> int:
    scores = []
    for choice in question["choices"]:
        context = tokenizer(question["context"])["input_ids"]
        answer = tokenizer(" " + choice)["input_ids"]
        tokens = torch.tensor([context + answer])[:, -128:]
        shares = model(tokens).logits[0].double().log_softmax(-1)
        own = shares[-len(answer) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
        scores.append(float(own.sum()))
    return max(range(len(scores)), key=scores.__getitem__)


def describe(name: str, **changes: object) -> None:
    """Write a variant of a local task."""
    folder = local_tasks.write_local_tasks()
    description = yaml.safe_load((folder / "timedial.yaml").read_text())
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(description | {"task": name} | changes))


def test_groups_tags_and_filters_come_as_their_tasks(files):
    model, tokenizer = make_language_model(), make_tokenizer()
    alone = zero_shot(model, tokenizer, ["timedial"], limit=6)["timedial"]
    folder = local_tasks.write_local_tasks()
    describe("one", tag=["both"])
    describe("two", tag=["both"])
    first = [{"name": "first", "filter": [{"function": "take_first"}]}]
    describe("filtered", filter_list=first)
    group = {"group": "all", "task": ["one", {"group": "inner", "task": ["filtered"]}]}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))
    for asked, names in (("both", {"one", "two"}), ("all", {"one", "filtered"})):
        found = zero_shot(model, tokenizer, [asked], limit=6)
        assert found.keys() == names
        assert all(value == alone for value in found.values())


def test_tasks_without_an_accuracy_are_refused_before_the_model_is_asked(files):
    describe("talk", output_type="generate_until", metric_list=[{"metric": "exact_match"}])
    with pytest.raises(DataError, match="'talk' reports exact_match but not accuracy"):
        zero_shot(None, make_tokenizer(), ["timedial", "talk"])
    describe("gone", dataset_kwargs={"data_files": {"validation": "/nowhere/at/all.jsonl"}})
    with pytest.raises(DataError, match="'gone' can't be loaded"):
        zero_shot(None, make_tokenizer(), ["gone"])


@pytest.mark.slow  # lm-eval looks through all that it has
def test_unknown_tasks_are_named(files):
    with pytest.raises(DataError, match="unknown tasks riddles; local ones: movie"):
        zero_shot(make_language_model(), make_tokenizer(), ["riddles"])
