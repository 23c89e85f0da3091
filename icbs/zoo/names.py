"""Names of the declared tasks: ours, and those of other distributions."""

from __future__ import annotations

from importlib.metadata import entry_points

from icbs.errors import ConfigError

BUILTIN = {
    "deit": "icbs.zoo.deit:load",
    "efficientnet_lite0": "icbs.zoo.efficientnet:load",
    "garment": "icbs.zoo.garment:load",
    "language_model": "icbs.zoo.language_model:load",
}
GROUP = "icbs.tasks"
"""Entry points by which a distribution declares tasks of its own."""


def declared() -> dict[str, str]:
    """Import strings of the declared tasks, by name; a built-in name is never replaced."""
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | BUILTIN


def check_declared(name: str, source: object) -> None:
    """Refuse a function that a file names as its task: loading the task would run it.

    Raises
    ------
    ConfigError
        The message says how to run it all the same.
    """
    if ":" in name and name not in declared():
        raise ConfigError(
            f"{source} names {name!r:.200} as its task, a function that would be run; from a file "
            f"only declared tasks are taken ({', '.join(sorted(declared()))}). If you know the "
            f"function, name it again yourself: --task {name:.200}"
        )
