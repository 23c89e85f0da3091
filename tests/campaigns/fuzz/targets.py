"""Every reader of the project, each as a function of one path."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from icbs import IcbsError, load_compressed, load_masks
from icbs.cli import app, session
from icbs.cli.config_file import Settings, parse_assignments
from icbs.cli.solution_io import read_initial_state
from icbs.config import PrunerConfig
from icbs.export.digests import digest, json_digest, tensors_digest
from icbs.export.safetensors_files import KEY
from icbs.lm import load_language_model, read_texts
from icbs.report.evaluations import read_evaluations
from icbs.run.context import RunContext
from icbs.run.history import read_history
from icbs.run.run_folder import RunFolder
from icbs.zoo.fashion_mnist import read_idx
from icbs.zoo.training import load_or_train
from problems import FormatError, Instance
from problems.formats import FORMATS, read
from tests.campaigns.fuzz.corpus import SETTINGS
from tests.icbs.conftest import make_toy

MEBI = 1 << 20


@dataclass(frozen=True)
class Target:
    """A reader, the valid files that it starts from, and what it may cost."""

    name: str
    read: Callable[[Path], object]
    seeds: str
    """Pattern of valid files in the corpus."""
    kind: str
    """Structure of the file, for :func:`tests.campaigns.fuzz.mutators.mutate`."""
    whole: bool = False
    """The files lie in a folder, which is what is read, with one of them spoilt."""
    weight: float = 1.0
    """Share of the inputs, against the other targets."""
    memory: int = 256 * MEBI
    """Growth of resident memory allowed whatever the input's size."""


class CliError(Exception):
    """A command that ended in neither success nor an error of one line."""


class RefusedError(IcbsError):
    """A command that ended with one line of an error."""


class ReachedError(IcbsError):
    """Where a command would begin to load a model: its settings were taken."""


def cli(*arguments: object) -> None:
    """Run a command in this process; anything but an end by 0 or 2 in one line is a defect."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 2) or "Traceback" in result.output or "\x1b" in result.output:
        raise CliError(f"exit code {result.exit_code}: {result.output[-500:]!r}")
    if result.exit_code == 2 and ReachedError.__name__ not in result.output:
        raise RefusedError(result.output)


def _reached(*_: Any) -> None:
    raise ReachedError


def prune_with(path: Path) -> None:
    """``icbs prune --config``, up to where the task would be loaded."""
    session.open_task = _reached  # type: ignore[assignment]
    cli("prune", "--config", path, "--run", path.parent / "never")


def resume(path: Path) -> None:
    session.open_task = _reached  # type: ignore[assignment]
    cli("resume", path)


def problem(name: str, path: Path) -> None:
    try:
        read(path, name)
    except FormatError:
        if name == "npz":
            raise
        read(path, name, k=3)  # texts that hold no cardinality


def assignments(path: Path) -> None:
    """Each line as the value of ``--set``."""
    text = path.read_bytes().decode("utf-8", "replace")
    PrunerConfig.of(**parse_assignments([line for line in text.splitlines() if line]))


def folder(path: Path) -> None:
    run = RunFolder(path)
    run.config(), run.about(), run.plan(), run.initial_masks()


@cache
def workspace() -> RunContext:
    toy = make_toy()
    return RunContext.prepare(toy.model, toy.batches, toy.loss, PrunerConfig.of(**SETTINGS))


def checkpoint(path: Path) -> None:
    RunFolder(path).load(workspace())


def cached(path: Path) -> None:
    load_or_train(make_toy().model, path, lambda: None)


def model(path: Path) -> None:
    load_language_model(path)


def texts(path: Path) -> None:
    list(read_texts(path))


def reseal(path: Path) -> None:
    """Give a spoilt file a digest that fits, as whoever means harm would, where it can be read."""
    with suppress(Exception):
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        facts.pop("digest", None)
        facts["digest"] = tensors_digest(facts, tensors)
        save_file(tensors, path, {KEY: json.dumps(facts)})


def sealed(read_file: Callable[[Path], object], name: str, path: Path) -> None:
    """Read a file, or a folder with a file in it, whose digest fits whatever was spoilt."""
    reseal(path / name if name else path)
    read_file(path)


def spoil_manifest(path: Path) -> None:
    """Let the manifest agree with a spoilt configuration, so that its values are looked at."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["settings"] = digest([(path / "config.yaml").read_bytes()])
    seal_manifest(path, manifest)


def seal_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with a digest that fits."""
    manifest.pop("digest", None)
    manifest["digest"] = json_digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def sealed_manifest(path: Path) -> None:
    """Read a folder whose spoilt manifest has a digest that fits."""
    with suppress(Exception):
        seal_manifest(path, dict(json.loads((path / "manifest.json").read_text())))
    folder(path)


def settings_in_folder(path: Path) -> None:
    spoil_manifest(path)
    folder(path)


ST = "safetensors"
KINDS = {"npz": "zip", "bqm": "dimod", "cqm": "dimod", "json": "json"}
"""Structures of the problem files that are not texts."""


TARGETS: tuple[Target, ...] = (
    *(
        Target(
            f"problem {name}", partial(problem, name), f"problems/{name}-*",
            KINDS.get(name, "text"), weight=1.5, memory=1024 * MEBI,
        )
        for name in FORMATS
    ),
    Target("instance", Instance.load, "instances/*", "zip", memory=1024 * MEBI),
    Target("state npz", read_initial_state, "states/x.npz", "zip"),
    Target("state json", read_initial_state, "states/x.json", "json"),
    Target("state npy", read_initial_state, "states/x.npy", "bytes"),
    Target("masks", load_masks, "tensors/masks.*", ST),
    Target("masks sealed", partial(sealed, load_masks, ""), "tensors/masks.*", ST, weight=2),
    Target("compressed", load_compressed, "tensors/compressed.*", ST),
    Target("compressed sealed", partial(sealed, load_compressed, ""), "tensors/c*", ST, weight=2),
    Target("settings", lambda path: Settings.read(path, {}), "yaml/*", "yaml", weight=2),
    Target("--set", assignments, "set/*", "text"),
    Target("run config", settings_in_folder, "run/config.yaml", "yaml", whole=True),
    Target("run manifest", folder, "run/manifest.json", "json", whole=True),
    Target("run manifest 2", sealed_manifest, "run/manifest.json", "json", whole=True),
    Target("run initial", folder, "run/initial.safetensors", ST, whole=True),
    Target("run checkpoint", checkpoint, "run/checkpoint.safetensors", ST, whole=True),
    Target(
        "run checkpoint 2", partial(sealed, checkpoint, "checkpoint.safetensors"),
        "run/checkpoint.safetensors", ST, whole=True, weight=2,
    ),
    Target("run history", checkpoint, "run/history.csv", "csv", whole=True),
    Target("history", read_history, "run/history.csv", "csv"),
    Target("evaluations", read_evaluations, "run/evaluations.csv", "csv"),
    Target("idx", read_idx, "idx/*", "gzip", weight=2),
    Target("texts jsonl", texts, "texts/*.jsonl", "jsonl"),
    Target("texts txt", texts, "texts/*.txt", "text"),
    Target("texts folder", texts, "texts/*", "jsonl", whole=True),
    Target("cached model", cached, "cached/*", ST),
    Target("gguf", model, "gguf/*", "gguf", weight=1.5),
    Target("model config", model, "model/config.json", "json", whole=True, weight=0.7),
    Target("model weights", model, "model/model.safetensors", ST, whole=True, weight=0.7),
    Target("model tokenizer", model, "model/tokenizer*.json", "json", whole=True, weight=0.7),
    # Through the console command, in this process.
    Target("icbs prune", prune_with, "yaml/*", "yaml"),
    Target("icbs resume", resume, "run/manifest.json", "json", whole=True),
    Target("icbs report", partial(cli, "report"), "run/history.csv", "csv", whole=True, weight=0.3),
    Target("icbs report 2", partial(cli, "report"), "run/ev*.csv", "csv", whole=True, weight=0.3),
    Target("icbs compress", partial(cli, "compress"), "run/m*.safetensors", ST, whole=True),
    Target(
        "icbs expand", lambda path: cli("expand", path, path.parent / "whole.safetensors"),
        "tensors/compressed.*", ST, weight=0.5,
    ),
    Target(
        "icbs blocks", partial(cli, "blocks", "--pass", "0-9"), "instances/*", "zip", whole=True,
        weight=0.3, memory=1024 * MEBI,
    ),
    Target(
        "icbs solve", lambda path: cli("solve", path, "--solver", "diagonal", "--seed", 0),
        "problems/npz-*", "zip", weight=0.3, memory=1024 * MEBI,
    ),
    Target(
        "icbs solve free",
        lambda path: cli("solve", path, "--free", "--solver", "diagonal", "--seed", 0),
        "problems/bqm-*", "dimod", weight=0.3, memory=1024 * MEBI,
    ),
    Target(
        "icbs export", lambda path: cli("export", path, path.parent / "out.coo"),
        "problems/mps-*", "text", weight=0.3, memory=1024 * MEBI,
    ),
)  # fmt: skip

BY_NAME = {target.name: target for target in TARGETS}
