"""Kill a run again and again, resume it each time, and compare what it comes to.

``python -m tests.campaigns.kills FOLDER --kills 200`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.campaigns.small import Case, child, make_case, outcome

OPERATIONS = {
    *("open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"),
    *("os.ftruncate", "os.scandir", "os.listdir", "fcntl.flock"),
}
"""Audit events of Python that touch the file system."""


class Counter:
    """Counts the file operations within a folder, and kills its own process before one."""

    def __init__(self, folder: Path, deadly: int | None = None) -> None:
        self.folder, self.deadly, self.count = str(folder), deadly, 0
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in OPERATIONS and args and self.concerns(args[0]):
            if self.count == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1

    def concerns(self, what: Any) -> bool:
        return isinstance(what, int) or str(what).startswith(self.folder)


def count_operations(case: Case, run: Path) -> int:
    """Count the file operations of a whole run."""
    told = run.with_suffix(".count")

    def act() -> None:
        counter = Counter(run)
        case.go(run)
        told.write_text(str(counter.count))

    assert child(act) == 0
    return int(told.read_text())


def campaign(name: str, folder: Path, kills: int, every: int, seed: int) -> dict[str, Any]:
    """Kill at random moments, and before every so many-th file operation.

    Returns
    -------
    dict
        Numbers of kills that met a running process, of runs compared and of those that differ
        from the run that nobody killed.
    """
    case, draw = make_case(name), random.Random(seed)
    case.go(folder / "warm")  # compiles the solver, for all forks
    operations = count_operations(case, folder / "whole")
    expected = outcome(folder / "whole")
    report = {"case": name, "operations": operations, "at_random": 0, "at_operation": 0}
    differing, failed = [], []

    def finish(run: Path, what: str) -> None:
        if child(lambda: case.go(run)) != 0:
            failed.append(what)
        elif outcome(run) != expected:
            differing.append(what)
        shutil.rmtree(run)

    began = time.perf_counter()
    child(lambda: case.go(folder / "timed"))
    length = time.perf_counter() - began
    number = 0
    while report["at_random"] < kills:
        run, number = folder / f"random-{number}", number + 1
        while report["at_random"] < kills and not done(run):
            moment = draw.uniform(0, 0.7 * length)
            report["at_random"] += child(lambda run=run: case.go(run), moment) == -signal.SIGKILL
        finish(run, f"random {number}")
    for operation in range(0, operations, every):
        run = folder / f"operation-{operation}"

        def act(run: Path = run, operation: int = operation) -> None:
            Counter(run, operation)
            case.go(run)

        report["at_operation"] += child(act) == -signal.SIGKILL
        # Once more in what follows, at the same count: while it recovers.
        report["at_operation"] += child(act) == -signal.SIGKILL
        finish(run, f"operation {operation}")
    runs = number + len(range(0, operations, every))
    return report | {"runs": runs, "differing": differing, "failed": failed}


def done(run: Path) -> bool:
    """Whether a run has written the last of its files."""
    return (run / "summary.json").exists()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", default="toy", choices=["toy", "masks", "blocks", "language"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(campaign(given.case, given.folder, given.kills, given.every, given.seed)))
