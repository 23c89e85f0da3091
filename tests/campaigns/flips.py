"""Flip single bits in the files of a run, use each file again, and compare what comes of it.

``python -m tests.campaigns.flips FOLDER --flips 400`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icbs import RunFolderError, load_compressed, load_masks, save_compressed
from icbs.commands.compress import read_state
from icbs.records.runfolder import RunFolder
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
    save_compressed(read_state(run), masks, small)
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


def campaign(folder: Path, flips: int, seed: int) -> dict[str, Any]:
    """Flip bits, and see that a use is refused or comes to what it did before.

    Returns
    -------
    dict
        Numbers of flips by what became of them: ``refused`` by name, ``harmless`` (white space
        in a header, what no use reads), ``silent`` (another outcome) and ``untyped`` errors.
    """
    given, plain_case = make_case("masks"), make_case("toy")
    interrupted(given, folder / "unborn", 0)  # no checkpoint yet: the given masks count
    interrupted(given, folder / "middle", 5)
    done = folder / "done"
    plain_case.go(done)
    save_compressed(
        read_state(done), load_masks(done / "masks.safetensors"), done / "compressed.safetensors"
    )
    uses: list[tuple[Path, str, Use]] = []
    for run, use in (("unborn", resumed(given)), ("middle", resumed(given))):
        names = ("config.yaml", "manifest.json", "initial.safetensors")
        names += ("checkpoint.safetensors", "history.csv") * 4
        uses += [(folder / run, name, use) for name in names if (folder / run / name).exists()]
    for name, use in (
        *((name, compressed) for name in ("masks.safetensors", "model.safetensors")),
        *((name, reported) for name in ("config.yaml", "manifest.json", "history.csv")),
        ("compressed.safetensors", expanded),
    ):
        uses.append((done, name, use))
    report: dict[str, Any] = {"refused": 0, "harmless": 0, "silent": [], "untyped": [], "files": {}}
    expected: dict[tuple[Path, Use], Any] = {}
    draw, told = random.Random(seed), folder / "told"
    for number in range(flips):
        run, name, use = uses[number % len(uses)]
        scratch = folder / "scratch"

        def judged(scratch: Path = scratch, use: Use = use, wanted: Any = None) -> None:
            try:
                found = use(scratch)
            except RunFolderError:
                told.write_text("refused")
            except Exception as error:
                told.write_text(f"untyped {type(error).__name__}: {error}")
            else:
                told.write_text("harmless" if found == wanted else "silent")

        if (run, use) not in expected:
            shutil.copytree(run, scratch)
            expected[run, use] = use(scratch)
            shutil.rmtree(scratch)
        shutil.copytree(run, scratch)
        content = bytearray((scratch / name).read_bytes())
        bit = chosen_bit(draw, name, content)
        content[bit // 8] ^= 1 << bit % 8
        (scratch / name).write_bytes(content)
        told.unlink(missing_ok=True)
        wanted = expected[run, use]
        status = child(lambda judged=judged, wanted=wanted: judged(wanted=wanted))
        what = told.read_text() if told.exists() else f"untyped exit status {status}"
        shutil.rmtree(scratch)
        kind = what.split()[0]
        if kind in ("refused", "harmless"):
            report[kind] += 1
        else:
            report[kind].append(f"bit {bit} of {run.name}/{name}: {what}")
        report["files"][name] = report["files"].get(name, 0) + 1
    return report


def chosen_bit(draw: random.Random, name: str, content: bytes) -> int:
    """Draw a bit; of safetensors every other one in the tensors, however long the header is."""
    start = 0
    if name.endswith(".safetensors") and draw.random() < 0.5:
        start = 8 + int.from_bytes(content[:8], "little")
    return draw.randrange(8 * start, 8 * len(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(campaign(given.folder, given.flips, given.seed)))
