"""Flip single bits in the files of a run, use each file again, and compare what comes of it.

``python -m tests.campaigns.flips FOLDER --flips 400`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icbs import RunFolderError, load_compressed, load_masks, save_compressed
from icbs.cli.compress import read_model_state
from icbs.run.run_folder import RunFolder
from tests.campaigns.small import Case, child, facts, make_case

Use = Callable[[Path], Any]


class StopError(Exception):
    """Ends a run in its middle."""


def interrupted(case: Case, run: Path, after: int) -> None:
    """Leave a run as it is after a number of passes."""

    def stop(progress: Any) -> None:
        if progress.step == after:
            raise StopError

    try:
        case.go(run, stop)
    except StopError:
        return
    raise AssertionError("the run was to be stopped")


def resumed(case: Case) -> Use:
    """Return what a run comes to that goes on."""

    def use(run: Path) -> Any:
        result = case.go(run)
        masks = {name: mask.tolist() for name, mask in result.masks.items()}
        return masks, facts(result.history), result.loss, result.initial_loss

    return use


def compressed(run: Path) -> Any:
    """Return the model that ``icbs compress`` would make of a run, and ``icbs expand`` of that."""
    masks, small = load_masks(run / "masks.safetensors"), run / "small.safetensors"
    save_compressed(read_model_state(run), masks, small)
    return plain(load_compressed(small))


def expanded(run: Path) -> Any:
    """Return what is in a compressed model."""
    return plain(load_compressed(run / "compressed.safetensors"))


def reported(run: Path) -> Any:
    """Return what ``icbs report`` reads of a run, but wall times."""
    folder = RunFolder(run)
    return folder.config(), folder.about(), facts(folder.history())


def plain(parts: tuple[dict[str, Any], ...]) -> Any:
    return [{name: value.numpy().tobytes() for name, value in part.items()} for part in parts]


@dataclass(frozen=True)
class Trial:
    """A file of a run, and something that reads it."""

    run: Path
    file: str
    use: Use


def make_trials(folder: Path) -> list[Trial]:
    """Make three runs (not yet at a checkpoint, in its middle, done), and list what can be hit."""
    given, toy = make_case("masks"), make_case("toy")
    unborn, middle, done = folder / "unborn", folder / "middle", folder / "done"
    interrupted(given, unborn, 0)
    interrupted(given, middle, 5)
    toy.go(done)
    masks = load_masks(done / "masks.safetensors")
    save_compressed(read_model_state(done), masks, done / "compressed.safetensors")
    go_on = resumed(given)
    begun = ("config.yaml", "manifest.json", "initial.safetensors")
    state = ("checkpoint.safetensors", "history.csv")
    files: list[tuple[Path, Use, tuple[str, ...]]] = [
        (unborn, go_on, begun),
        (middle, go_on, begun + 4 * state),
        (done, reported, (*begun[:2], "history.csv")),
        (done, compressed, ("masks.safetensors", "model.safetensors", "summary.json")),
        (done, expanded, ("compressed.safetensors",)),
    ]
    return [Trial(run, name, use) for run, use, names in files for name in names]


def flipped(path: Path, draw: random.Random) -> None:
    """Flip a bit of a file; of safetensors every other one is in the tensors, small as they are."""
    content, start = bytearray(path.read_bytes()), 0
    if path.suffix == ".safetensors" and draw.random() < 0.5:
        start = 8 + int.from_bytes(content[:8], "little")
    bit = draw.randrange(8 * start, 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def verdict(use: Use, run: Path, expected: Any) -> str:
    """Say what became of a damaged run."""
    try:
        return "harmless" if use(run) == expected else "silent"
    except RunFolderError:
        return "refused"
    except Exception as error:
        return f"untyped {type(error).__name__}: {error}"


def campaign(folder: Path, flips: int, seed: int) -> dict[str, Any]:
    """Flip bits, and see that a use is refused or comes to what it did before.

    Returns
    -------
    dict
        Numbers of flips by what became of them: ``refused`` by name, ``harmless`` (white space
        in a header, what no use reads), and under ``wrong`` what was silently another outcome or
        an error of no type of ours; and the numbers by file.
    """
    trials, draw = make_trials(folder), random.Random(seed)
    scratch, told = folder / "scratch", folder / "told"
    expected: dict[tuple[Path, Use], Any] = {}
    found, wrong, files = Counter[str](), [], Counter[str]()
    for number in range(flips):
        trial = trials[number % len(trials)]
        key = trial.run, trial.use
        if key not in expected:
            shutil.copytree(trial.run, scratch)
            expected[key] = trial.use(scratch)
            shutil.rmtree(scratch)
        shutil.copytree(trial.run, scratch)
        flipped(scratch / trial.file, draw)
        told.write_text("wrong: the process ended")

        def act(use: Use = trial.use, wanted: Any = expected[key]) -> None:
            told.write_text(verdict(use, scratch, wanted))

        child(act)
        what = told.read_text()
        found[what] += 1
        files[trial.file] += 1
        if what not in ("refused", "harmless"):
            wrong.append(f"flip {number}, in {trial.run.name}/{trial.file}: {what}")
        shutil.rmtree(scratch)
    return {
        "refused": found["refused"],
        "harmless": found["harmless"],
        "wrong": wrong,
        "files": dict(files),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(campaign(given.folder, given.flips, given.seed)))
