"""Jobs that can be run by name: a model, its training samples, its loss and its test."""

from icbs.tasks.task import BUILTIN, Task, load_task

__all__ = ["BUILTIN", "Task", "load_task"]
