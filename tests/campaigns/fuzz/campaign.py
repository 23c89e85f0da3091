"""The campaign: inputs drawn from a seed, read in a worker, counted by how they end."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.campaigns.fuzz.hostile import HOSTILE
from tests.campaigns.fuzz.mutators import mutate
from tests.campaigns.fuzz.targets import BY_NAME, TARGETS, Target

ROOT = Path(__file__).parents[3]
CPU_SECONDS, WALL_SECONDS = 10.0, 60.0
"""Computing, or waiting, for longer is a hang."""
PER_BYTE = 100
"""Bytes of memory for each byte of an input, beside what a target may use whatever its size."""
BAD = ("untyped", "hang", "memory", "died")


@dataclass
class Tally:
    """How the inputs ended."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """Inputs in all."""
        return sum(sum(count.values()) for count in self.counts.values())

    def add(self, target: Target, found: dict[str, Any], about: str, size: int) -> bool:
        """Count one; whether it failed."""
        if found.get("bytes", 0) > target.memory + PER_BYTE * size:
            found = found | {"outcome": "memory"}
        self.counts.setdefault(target.name, Counter())[found["outcome"]] += 1
        if found["outcome"] in BAD:
            self.failures.append(found | {"target": target.name, "input": about, "size": size})
        return found["outcome"] in BAD

    def table(self) -> str:
        """Lay the counts out, a target a line."""
        columns = ("read", "refused", *BAD)
        total: Counter[str] = sum(self.counts.values(), Counter())
        lines = [f"{'target':16}" + "".join(f"{column:>9}" for column in columns)]
        for name, count in [*self.counts.items(), ("in all", total)]:
            lines.append(f"{name:16}" + "".join(f"{count[column]:9}" for column in columns))
        return "\n".join(lines)


class Worker:
    """The process that reads, started anew after each input that it does not survive."""

    def __init__(self, corpus: Path, targets: list[Target]) -> None:
        self.corpus, self.targets = corpus, targets
        self.process: subprocess.Popen[str] | None = None

    def read(self, target: str, path: Path) -> dict[str, Any]:
        """Have one input read."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"target": target, "path": str(path)}) + "\n")
        process.stdin.flush()
        return self._answer(process, CPU_SECONDS, WALL_SECONDS)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            command = [sys.executable, "-m", "tests.campaigns.fuzz.worker", str(self.corpus)]
            command += [target.name for target in self.targets]
            self.process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            ready = self._answer(self.process, 300.0, 600.0)
            if not ready.get("ready"):
                raise RuntimeError(f"the worker does not start: {ready}")
        return self.process

    def _answer(self, process: subprocess.Popen[str], cpu: float, wall: float) -> dict[str, Any]:
        assert process.stdout is not None
        began, spent = time.monotonic(), _cpu(process.pid)
        while not select.select([process.stdout], [], [], 0.5)[0]:
            used, waited = _cpu(process.pid) - spent, time.monotonic() - began
            if used > cpu or waited > wall:
                self.close()
                spent_on = f"{used:.0f} s computing, {waited:.0f} s in all"
                return {"outcome": "hang", "error": spent_on}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            return {"outcome": "died", "error": f"exit code {code}"}
        return json.loads(line)


def _cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def drawn(
    corpus: Path, scratch: Path, count: int, seed: int, targets: list[Target]
) -> Iterator[tuple[Target, Path, str]]:
    """Write spoilt inputs one after another, each target by its share; yield where they are."""
    draw = random.Random(seed)
    weights = [target.weight for target in targets]
    files = {target.name: sorted(corpus.glob(target.seeds)) for target in targets}
    everything = [file for file in sorted(corpus.rglob("*")) if file.is_file()]
    for number in range(count):
        (target,) = draw.choices(targets, weights)
        valid = draw.choice(files[target.name])
        other = draw.choice(files[target.name] if draw.random() < 0.7 else everything)
        content = mutate(draw, target.kind, valid.read_bytes(), other.read_bytes())
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        if target.whole:
            path = Path(shutil.copytree(valid.parent, scratch / valid.parent.name))
            (path / valid.name).write_bytes(content)
        else:
            path = scratch / valid.name
            path.write_bytes(content)
        yield target, path, f"seed {seed}, number {number}, of {valid.name}"


def hostile(
    corpus: Path, scratch: Path, targets: list[Target]
) -> Iterator[tuple[Target, Path, str]]:
    """Make the inputs that were thought of, one after another."""
    names = {target.name for target in targets}
    for name, make in HOSTILE:
        if name in names:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            yield BY_NAME[name], make(scratch, corpus), make.__name__


def size_of(path: Path) -> int:
    """Bytes of an input, with all of its folder."""
    files = [path] if not path.is_dir() else list(path.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes and links, which are not copied."""
    files = {name: Path(folder) / name for name in names}
    return [
        n for n, file in files.items() if file.is_symlink() or not (file.is_file() or file.is_dir())
    ]


def campaign(
    corpus: Path,
    scratch: Path,
    *,
    count: int,
    seed: int = 0,
    targets: list[Target] | None = None,
    keep: Path | None = None,
) -> Tally:
    """Read the hostile inputs and ``count`` spoilt ones; failing ones are kept in ``keep``."""
    chosen = list(TARGETS) if targets is None else targets
    tally, worker = Tally(), Worker(corpus, chosen)
    try:
        for source in (
            hostile(corpus, scratch, chosen),
            drawn(corpus, scratch, count, seed, chosen),
        ):
            for target, path, about in source:
                size = size_of(path)
                failed = tally.add(target, worker.read(target.name, path), about, size)
                if failed and keep is not None:
                    kept = keep / f"{len(tally.failures):04}-{target.name.replace(' ', '-')}"
                    if path.is_dir():
                        shutil.copytree(path, kept, ignore=_special)
                    elif path.is_file():
                        shutil.copy(path, kept)
    finally:
        worker.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return tally
