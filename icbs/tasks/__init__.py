"""Jobs that can be run by name: a model, its training samples, its loss and its test."""

from icbs.tasks.task import BUILTIN, Task, check_declared, declared, load_task

__all__ = ["BUILTIN", "Task", "check_declared", "declared", "load_task"]
