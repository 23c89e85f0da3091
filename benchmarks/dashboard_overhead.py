"""Slowdown of a run by the dashboard that follows it.

    python -m benchmarks.dashboard_overhead

Runs of one classifier, in turn without and with ``icbs watch`` and an open page, which another
process holds. It prints the time per pass of both, their ratio, and the processor time of the
watching process as a share of the run's time, which is meaningful on a loaded machine too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from icbs import Pruner
from icbs.run.run_folder import RunFolder
from icbs.zoo import load_task


def _run(folder: Path, task: str, passes: int, interval: float | None) -> tuple[float, float]:
    """Prune once; return seconds per pass, and the share of the watching process's time."""
    subject = load_task(task)
    watcher: list[subprocess.Popen[str]] = []
    sessions: list[object] = []
    used = [0.0, 0.0, 0.0, 0.0]

    def follow(progress: object) -> None:
        if interval is not None and not watcher:
            command = [sys.executable, "-m", "icbs", "watch", str(folder), "--port", "0"]
            process = subprocess.Popen(
                [*command, "--interval", str(interval)], stdout=subprocess.PIPE, text=True
            )
            watcher.append(process)
            line = process.stdout.readline() if process.stdout else ""
            from bokeh.client import pull_session

            sessions.append(pull_session(url=line[line.index("http") :].split()[0]))
            used[0], used[2] = sum(psutil.Process(process.pid).cpu_times()[:2]), time.monotonic()
        if progress.step == passes and watcher:  # type: ignore[attr-defined]
            used[1], used[3] = sum(psutil.Process(watcher[0].pid).cpu_times()[:2]), time.monotonic()

    pruner = Pruner(density=0.2, passes=passes, block_size=16)
    try:
        result = pruner.prune(
            subject.model,
            subject.batches,
            subject.loss,
            run=folder,
            callback=follow,
            progress=False,
        )
    finally:
        for process in watcher:
            process.terminate()
            process.wait()
    share = (used[1] - used[0]) / (used[3] - used[2]) if watcher else 0.0
    return (result.seconds - result.start_seconds) / result.passes, share


def _notes(folder: Path, task: str, passes: int) -> float:
    """Return the share of a run's time that writing progress takes."""
    subject, spent, note = load_task(task), [0.0], RunFolder.note

    def timed(*args: object) -> None:
        start = time.perf_counter()
        note(*args)  # type: ignore[arg-type]
        spent[0] += time.perf_counter() - start

    RunFolder.note = timed  # type: ignore[assignment]
    try:
        result = Pruner(density=0.2, passes=passes, block_size=16).prune(
            subject.model, subject.batches, subject.loss, run=folder, progress=False
        )
    finally:
        RunFolder.note = note  # type: ignore[method-assign]
    return spent[0] / result.seconds


def main(
    task: Annotated[str, typer.Option(help="Task of the runs.")] = "digits",
    passes: Annotated[int, typer.Option(help="Passes of a run.")] = 300,
    repeats: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    interval: Annotated[float, typer.Option(help="Seconds between updates of the page.")] = 2.0,
) -> None:
    """Measure the slowdown and print it."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        plain, watched, shares = [], [], []
        for i in range(repeats):
            plain.append(_run(place / f"plain-{i}", task, passes, None)[0])
            seconds, share = _run(place / f"watched-{i}", task, passes, interval)
            watched.append(seconds)
            shares.append(share)
        ratio = statistics.median(w / p for w, p in zip(watched, plain, strict=True))
        print(f"{passes} passes of {task}, {repeats} runs of each kind, one after the other")
        print(
            f"milliseconds per pass: {1e3 * statistics.median(plain):.2f} without the dashboard, "
        )
        print(f"  {1e3 * statistics.median(watched):.2f} with it; median ratio {ratio:.3f}")
        print(f"processor time of the dashboard: {statistics.median(shares):.2%} of the run's time")
        print(f"writing of progress: {_notes(place / 'notes', task, passes):.2%} of the run's time")


if __name__ == "__main__":
    typer.run(main)
