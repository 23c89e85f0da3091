"""Multiple-choice tasks for ``lm-eval`` from BIG-bench's files, usable without the hub.

They are written into the cache only: BIG-bench marks its tasks with a canary that keeps them
out of training data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from icbs.downloads import cache_folder
from icbs.downloads.wheels import BIG_BENCH
from icbs.lm.corpora import ARTICLES, is_english
from problems.files import write_text

MOVIES = "bigbench/benchmark_tasks/movie_recommendation/task.json"
DIALOGUES = "bigbench/benchmark_tasks/timedial/task.json"

LOCAL_TASKS = ("movie_recommendation", "next_sentence", "timedial")
"""The film most similar to four others (4 choices); the next sentence of a Wikipedia article
(4 choices); the missing time in a dialogue (3 choices)."""

Question = dict[str, Any]


def write_local_tasks(folder: Path | None = None) -> Path:
    """Write the questions and YAML descriptions of all tasks, unless they exist.

    Parameters
    ----------
    folder : Path, optional
        Folder to write to; by default in the cache.

    Returns
    -------
    Path
        The folder, for ``lm_eval.tasks.TaskManager(include_path=...)``.
    """
    target = folder or cache_folder() / "zero-shot"
    if all((target / f"{name}.jsonl").exists() for name in LOCAL_TASKS):
        for name in LOCAL_TASKS:
            describe_task(target, name)  # always written: lm-eval runs code in descriptions
        return target
    target.mkdir(parents=True, exist_ok=True)
    contents = BIG_BENCH.read([MOVIES, DIALOGUES, ARTICLES])
    examples = {name: json.loads(content)["examples"] for name, content in contents.items()}
    tasks = {
        "movie_recommendation": [_movies(e) for e in examples[MOVIES]],
        "next_sentence": list(next_sentences(e["input"] for e in examples[ARTICLES])),
        "timedial": [_dialogue(e) for e in examples[DIALOGUES]],
    }
    for name, questions in tasks.items():
        write_task(target, name, questions)
    return target


def write_task(folder: Path, name: str, questions: list[Question]) -> None:
    """Write one multiple-choice task of ``lm-eval``: ``NAME.jsonl`` and ``NAME.yaml``.

    Each question has ``context``, ``choices`` (continuations, in the order of presentation) and
    ``answer`` (index of the correct choice). Questions are in a random, fixed order, so that
    the first ones are a fair sample.
    """
    random.Random(0).shuffle(questions)
    text = "".join(json.dumps(question) + "\n" for question in questions)
    write_text(folder / f"{name}.jsonl", text)
    describe_task(folder, name)


def describe_task(folder: Path, name: str) -> None:
    """Write the description of a task with questions in ``NAME.jsonl``."""
    data = folder / f"{name}.jsonl"
    description = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(data)}},
        "validation_split": "validation",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
    }
    write_text(folder / f"{name}.yaml", yaml.safe_dump(description, sort_keys=False))


def next_sentences(articles: Iterable[str], choices: int = 4) -> Iterator[Question]:
    """Yield one question per English article: the sentence after its first two.

    Articles with long sentences are left out, to limit the time of an evaluation.

    Parameters
    ----------
    articles : iterable of str
        One sentence per line. The wrong choices are the third sentences of other articles.
    choices : int
        Number of choices per question.
    """
    draw = random.Random(0)
    split = [a.split("\n") for a in articles if is_english(a.replace("\n", " "))]
    short = [s for s in split if len(s) > 2 and len(s[0] + s[1]) <= 300 and 20 <= len(s[2]) <= 150]
    for own in short:
        others = draw.sample(short, choices)
        wrong = [s[2] for s in others if s is not own][: choices - 1]
        yield _question(" ".join(own[:2]), own[2], wrong, draw)


def _question(context: str, right: str, wrong: list[str], draw: random.Random) -> Question:
    shown = [right, *wrong]
    draw.shuffle(shown)
    return {"context": context, "choices": shown, "answer": shown.index(right)}


def _movies(example: dict[str, Any]) -> Question:
    return _scored(f"Find a movie similar to {example['input']}", example)


def _dialogue(example: dict[str, Any]) -> Question:
    return _scored(f"Question: {example['input']}\n<MASK> phrase:", example)


def _scored(context: str, example: dict[str, Any]) -> Question:
    scores = {choice.strip(): score for choice, score in example["target_scores"].items()}
    choices = list(scores)
    return {
        "context": context,
        "choices": choices,
        "answer": choices.index(max(scores, key=scores.__getitem__)),
    }
