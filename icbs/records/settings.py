"""A configuration file: which task, which run folder, and the pruner's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icbs.config import PrunerConfig, explain
from icbs.constraints import pattern_in
from icbs.errors import ConfigError


class Settings(BaseModel):
    """Contents of ``icbs prune --config FILE.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "garment"
    """Built-in task, or ``module:function`` that returns an :class:`icbs.tasks.Task`."""
    task_options: dict[str, Any] = {}
    """Keyword arguments of the task."""
    run: Path | None = None
    """Folder to make for checkpoints and results."""
    evaluate_every: Annotated[int, Field(ge=1)] = 5
    """Passes between evaluations on test samples."""
    pruner: PrunerConfig = PrunerConfig()
    """The pruner's own settings."""

    @classmethod
    def read(cls, path: Path | None, changes: dict[str, Any]) -> Settings:
        """Read a file (or start from the defaults) and apply changes on top.

        Parameters
        ----------
        path : Path, optional
        changes : dict
            Settings by name; those of the pruner as ``pruner.NAME``. A ``constraint`` of N:M says
            the density itself, so that the file's own no longer counts.

        Raises
        ------
        ConfigError
            If the file can't be read, or a setting is unknown or out of range.
        """
        content = {} if path is None else read_yaml(path)
        own = content.get("pruner")
        if isinstance(own, dict) and pattern_in(changes.get("pruner.constraint")):
            own.pop("density", None)
        for name, value in changes.items():
            section, dot, inner = name.partition(".")
            if dot:
                part = content.setdefault(section, {})
                if not isinstance(part, dict):
                    raise ConfigError(f"{section!r} in {path} must be a section of settings")
                part[inner] = value
            else:
                content[section] = value
        try:
            return cls(**content)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings as it stands."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration {path} can't be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"configuration {path} must be a mapping of settings to values")
    return content


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn ``name=value`` words into a dict; values are read as YAML.

    Raises
    ------
    ConfigError
        If a word is no assignment, or its value is no YAML.
    """
    found = {}
    for word in assignments:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"{word!r} is no setting; write name=value")
        try:
            found[name] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {name!r} can't be read: {error}") from error
    return found


def _number(value: Any) -> Any:
    """Take ``1e-3`` for a number, which YAML 1.1 takes for a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
