"""Tasks by name: a trained model with its training samples, loss and evaluation."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from icbs.errors import ConfigError
from problems.lazy import attach

if TYPE_CHECKING:
    from icbs.zoo.task import Task, load_task

__all__ = ["BUILTIN", "Task", "check_declared", "declared", "load_task"]

BUILTIN = {
    "deit": "icbs.zoo.deit:load",
    "digits": "icbs.zoo.digits:load",
    "efficientnet_lite0": "icbs.zoo.efficientnet:load",
    "garment": "icbs.zoo.garment:load",
    "language_model": "icbs.zoo.language_model:load",
    "sarcasm": "icbs.zoo.sarcasm:load",
    "tiny": "icbs.zoo.digits:load_tiny",
}
"""Import strings of the project's own tasks, by name."""
GROUP = "icbs.tasks"
"""Entry-point group of tasks in other distributions."""


def declared() -> dict[str, str]:
    """Return the import strings of all declared tasks; built-in names can't be replaced."""
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | BUILTIN


def check_declared(name: str, source: object) -> None:
    """Refuse a function as the task in a file, since loading the task would run it.

    Parameters
    ----------
    name : str
        Name of the task in the file.
    source
        The file, for the message.

    Raises
    ------
    ConfigError
        With the command-line option that names the function explicitly.
    """
    if ":" in name and name not in declared():
        raise ConfigError(
            f"{source} names the function {name!r:.200} as its task, which would be run; files may "
            f"name only declared tasks ({', '.join(sorted(declared()))}). If you trust the "
            f"function, name it on the command line: --task {name:.200}"
        )


# Loading these imports torch.
_HOME = {"Task": "icbs.zoo.task", "load_task": "icbs.zoo.task"}
__getattr__, __dir__ = attach(globals(), _HOME)
