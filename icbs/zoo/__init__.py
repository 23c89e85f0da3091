"""Jobs that can be run by name: a model, its training samples, its loss and its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from icbs.zoo.names import BUILTIN, check_declared, declared
    from icbs.zoo.task import Task, load_task

__all__ = ["BUILTIN", "Task", "check_declared", "declared", "load_task"]

_TASK, _NAMES = "icbs.zoo.task", "icbs.zoo.names"
_HOME = {
    "BUILTIN": _NAMES,
    "Task": _TASK,
    "check_declared": _NAMES,
    "declared": _NAMES,
    "load_task": _TASK,
}
__getattr__, __dir__ = attach(globals(), _HOME)
