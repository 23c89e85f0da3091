"""Tasks and loading them by name."""

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
from icbs.zoo import BUILTIN, declared
from problems.suggest import did_you_mean

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]


@dataclass
class Task:
    """A trained model with everything needed to prune and to evaluate it."""

    name: str
    model: nn.Module
    batches: Iterable[Any]
    """Training samples as (inputs, targets), the only data used for pruning."""
    loss: Loss
    evaluate: Callable[[nn.Module], dict[str, float]]
    """Figures on test samples, which are not used for pruning: ``loss``, and ``accuracy`` in
    [0, 1] for classifiers."""
    losses: Callable[[nn.Module], Tensor] | None = None
    """Loss of each test sample, shape (samples,), for standard errors of differences."""
    correct: Callable[[nn.Module], Tensor] | None = None
    """Whether each test sample is classified correctly, shape (samples,), for classifiers."""
    tokenizer: Any = None
    """Tokenizer of a language model, saved with the pruned model."""
    about: str = ""
    """One-line description of the data."""


def load_task(name: str, **options: Any) -> Task:
    """Load a task by a declared name or by ``module:function``.

    The function is imported and run; names from files must pass
    :func:`icbs.zoo.check_declared` first.

    Parameters
    ----------
    name : str
        One of :data:`icbs.zoo.BUILTIN`, an entry point of the group ``icbs.tasks``, or an
        import string of a function that returns a :class:`Task`.
    **options
        Keyword arguments of that function.

    Raises
    ------
    ConfigError
        If there is no such task, or it does not have these options.
    """
    module, colon, function = declared().get(name, name).partition(":")
    if not (module and colon and function):
        known = sorted(declared())
        raise ConfigError(
            f"unknown task {name!r}{did_you_mean(name, known)}; declared tasks: "
            f"{', '.join(known)}; for your own task write 'module:function'"
        )
    try:
        factory = attrgetter(function)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task {name!r} can't be imported: {error}") from error
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ConfigError(
            f"task {name!r} does not accept the options {brief(options)}: {error}"
        ) from error
    except ValueError:
        pass  # a C function without a signature
    task = factory(**(_checked(name, factory, options) if name in BUILTIN else options))
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r} returned {type(task).__name__}, not icbs.zoo.Task")
    return task


def _checked(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Validate options by the type hints of a function."""
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
