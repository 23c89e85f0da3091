"""What a task is, and how a name becomes one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from icbs.data.objective import Loss
from icbs.errors import ConfigError

BUILTIN = {
    "deit": "icbs.tasks.deit:load",
    "efficientnet_lite0": "icbs.tasks.efficientnet:load",
    "garment": "icbs.tasks.garment:load",
    "language_model": "icbs.tasks.language_model:load",
}


@dataclass
class Task:
    """A trained model with all that it takes to prune and to judge it."""

    name: str
    model: nn.Module
    batches: Iterable[Any]
    """Training samples as (inputs, targets); pruning sees nothing else."""
    loss: Loss
    evaluate: Callable[[nn.Module], dict[str, float]]
    """Figures on test samples that pruning never sees: ``loss``, and ``accuracy`` in [0, 1]
    where there is one."""
    losses: Callable[[nn.Module], Tensor] | None = None
    """Loss of each test sample, shape (samples,), for standard errors and paired ones."""
    tokenizer: Any = None
    """A language model's own; it is saved beside the pruned model."""
    about: str = ""
    """What a person may want to know about the data, in a line."""


def load_task(name: str, **options: Any) -> Task:
    """Load a task by a built-in name, or as ``module:function`` of the user's own.

    Parameters
    ----------
    name : str
        One of :data:`BUILTIN`, or an import string of a function that returns a :class:`Task`.
    **options
        Keyword arguments of that function.

    Raises
    ------
    ConfigError
        If there is no such task, or it does not take these options.
    """
    module, colon, function = BUILTIN.get(name, name).partition(":")
    if not colon:
        raise ConfigError(
            f"unknown task {name!r}; built-in tasks: {', '.join(BUILTIN)}; "
            "a task of your own is named 'module:function'"
        )
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task {name!r} can't be imported: {error}") from error
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ConfigError(f"task {name!r} does not take {options}: {error}") from error
    except ValueError:
        pass  # written in C: no signature to look at
    task = factory(**options)
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r} returned {type(task).__name__}, not icbs.tasks.Task")
    return task
