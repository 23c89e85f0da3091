"""What a task is, and how a name becomes one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from icbs.config import brief
from icbs.data.objective import Loss
from icbs.errors import ConfigError
from icbs.zoo.names import BUILTIN, declared
from problems.suggest import did_you_mean

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]


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
    """Load a task by a declared name, or as ``module:function`` of the user's own.

    The function is imported and run: a name that a file gives goes through
    :func:`check_declared` first.

    Parameters
    ----------
    name : str
        One of :data:`BUILTIN`, an entry point of the group ``icbs.tasks``, or an import string
        of a function that returns a :class:`Task`.
    **options
        Keyword arguments of that function.

    Raises
    ------
    ConfigError
        If there is no such task, or it does not take these options.
    """
    module, colon, function = declared().get(name, name).partition(":")
    if not (module and colon and function):
        known = sorted(declared())
        raise ConfigError(
            f"unknown task {name!r}{did_you_mean(name, known)}; declared tasks: "
            f"{', '.join(known)}; a task of your own is named 'module:function'"
        )
    try:
        factory = attrgetter(function)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task {name!r} can't be imported: {error}") from error
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ConfigError(f"task {name!r} does not take {brief(options)}: {error}") from error
    except ValueError:
        pass  # written in C: no signature to look at
    task = factory(**(_checked(name, factory, options) if name in BUILTIN else options))
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r} returned {type(task).__name__}, not icbs.zoo.Task")
    return task


def _checked(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Hold options against the types that the function declares."""
    hints, found = get_type_hints(factory, include_extras=True), {}
    for option, value in options.items():
        try:
            found[option] = TypeAdapter(hints[option]).validate_python(value)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(
                f"option {option} = {brief(value)} of task {name!r}: {reason}"
            ) from error
    return found
