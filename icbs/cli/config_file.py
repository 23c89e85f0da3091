"""Configuration files: the task, the run folder and the pruner's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icbs.cli.console import rename_settings
from icbs.config import PrunerConfig, explain
from icbs.config.constraints import pattern_in
from icbs.config.plain_yaml import PlainYamlError, load_plain
from icbs.errors import ConfigError
from icbs.export.safetensors_files import read_text
from icbs.recovery.config import RecoveryConfig
from icbs.zoo import check_declared


class Settings(BaseModel):
    """Contents of ``icbs prune --config FILE.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "garment"
    """Declared task (:func:`icbs.zoo.declared`), or, on the command line, ``module:function``."""
    task_options: dict[str, Any] = {}
    """Keyword arguments of the task."""
    run: Path | None = None
    """New folder for checkpoints and results."""
    evaluate_every: Annotated[int, Field(ge=1)] = 5
    """Passes between evaluations on test samples."""
    enumerate_masks: bool = False
    """Whether all masks are evaluated at the end, to compare with the true optimum."""
    pruner: PrunerConfig = PrunerConfig()
    """Settings of the pruner."""
    recovery: RecoveryConfig | None = None
    """Settings of the recovery after pruning; None for no recovery."""
    method: str = "icbs"
    """Method that makes the masks; see :func:`icbs.search`."""
    steps: int | list[float] = 1
    """Number of steps of the density, or the density after each; see
    :func:`icbs.prune_in_steps`."""
    decay: str = "cubic"
    """Course of the density over the steps."""
    start_density: float = 1.0
    """Density before the first step."""

    @property
    def gradual(self) -> bool:
        """Whether :func:`icbs.prune_in_steps` prunes, rather than a single run of iCBS."""
        return self.steps != 1 or self.method != "icbs"

    @classmethod
    def read(cls, path: Path | None, changes: dict[str, Any]) -> Settings:
        """Read a file, if given, and replace some of its settings.

        Parameters
        ----------
        path : Path, optional
        changes : dict
            Settings by name; those of the pruner as ``pruner.NAME``, those in a group or mapping
            of the pruner as ``pruner.paper.NAME``. A ``constraint`` of N:M replaces the file's
            density.

        Raises
        ------
        ConfigError
            If the file can't be read; if a setting is unknown or out of range; or if the file's
            task is a function, or its solver a class, that ``changes`` do not repeat.
        """
        content = {} if path is None else _in_own_words(read_yaml(path))
        in_file = content.get("pruner")
        if isinstance(in_file, dict) and pattern_in(changes.get("pruner.constraint")):
            in_file.pop("density", None)
        for name, value in changes.items():
            *sections, last = name.split(".", 2 if name.startswith("pruner.") else 1)
            part = content
            for section in sections:
                part = part.setdefault(section, {})
                if not isinstance(part, dict):
                    raise ConfigError(f"{section!r} in {path} must be a section of settings")
            part[last] = value
        if isinstance(content.get("pruner"), dict):
            content["pruner"] = rename_settings(content["pruner"])
        try:
            chosen = cls.model_validate(content)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error
        if "task" not in changes:
            check_declared(chosen.task, path)
        if ":" in chosen.pruner.solver and "pruner.solver" not in changes:
            raise ConfigError(
                f"{path} names {chosen.pruner.solver!r:.200} as its solver, which would be run; "
                "files may name only registered solvers ('icbs solvers'). If you trust it, name it "
                f"on the command line: --solver {chosen.pruner.solver:.200}"
            )
        return chosen


def _in_own_words(content: dict[str, Any]) -> dict[str, Any]:
    """Translate the words of Neural Compressor, if there are any; print notes on them."""
    from icbs.config.neural_compressor import from_neural_compressor, has_its_words
    from icbs.report.screen import Screen

    if not has_its_words(content):
        return content
    settings, notes = from_neural_compressor(content)
    for note in notes:
        Screen(stderr=True, soft_wrap=True).print(note, style="dim", highlight=False)
    return settings


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings without validation.

    Raises
    ------
    ConfigError
        If it can't be read, is not plain YAML (:mod:`icbs.config.plain_yaml`), or not a mapping.
    """
    try:
        content = load_plain(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"configuration {path} can't be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"configuration {path} must be a mapping of settings to values")
    return content


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Convert strings ``name=value`` to a dict, with values parsed as YAML.

    A value that begins with ``*`` is a pattern: YAML's aliases are not read anyway.

    Raises
    ------
    ConfigError
        If a string is not an assignment, or its value is not YAML.
    """
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals):
            raise ConfigError(f"{assignment!r} is not an assignment; write name=value")
        try:
            found[name] = value if value.startswith("*") else load_plain(value)
        except PlainYamlError as error:
            raise ConfigError(f"the value of {name!r} can't be read: {error}") from error
    return found


def in_groups(assignments: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings named ``group.name`` into their groups, and rename old settings.

    Raises
    ------
    ConfigError
        If a group also has a value of its own, or an old setting has no equivalent.
    """
    found: dict[str, Any] = {}
    for name, value in assignments.items():
        group, dot, inner = name.partition(".")
        if not dot:
            found[name] = value
        elif isinstance(part := found.setdefault(group, {}), dict):
            part[inner] = value
        else:
            raise ConfigError(f"{group!r} has a value, and can't contain {inner!r} as well")
    return rename_settings(found)
