"""Jobs that can be run by name: a model, its training samples, its loss and its test."""

from icbs.tasks.task import Task, load_task

__all__ = ["Task", "load_task"]
