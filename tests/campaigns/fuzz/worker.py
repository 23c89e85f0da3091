"""A process that reads one input after another, and says how each ended and what it cost.

Lines of JSON in, ``{"target": …, "path": …}``, and out; a target is one of
:data:`tests.campaigns.fuzz.targets.TARGETS`, or ``module:function``. It is killed from outside when
an input takes too long.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from problems import IcbsError

#: Address space beyond what it has after its warm-up: a bomb ends here, not with the machine.
ROOM = 6 << 30


def main(corpus: Path, names: list[str]) -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    _warm_up(corpus, names)
    size = int(_status("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        found = run(asked["target"], Path(asked["path"]))
        print(json.dumps(found), file=answers, flush=True)


def run(name: str, path: Path) -> dict[str, Any]:
    """Read one input; memory is the peak of the resident set over what it was before."""
    gc.collect()
    _reset_peak()
    before = _status("VmRSS")
    error = trace = ""
    try:
        reader(name)(path)
        outcome = "read"
    except IcbsError as found:
        outcome, error = "refused", f"{type(found).__name__}: {found!s:.300}"
    except MemoryError as found:
        outcome, error = "memory", repr(found)[:300]
    except BaseException as found:
        outcome, error = "untyped", repr(found)[:300]
        trace = traceback.format_exc()[-3000:]
    peak = _status("VmHWM") - before
    return {"outcome": outcome, "error": error, "trace": trace, "bytes": peak}


def reader(name: str) -> Callable[[Path], object]:
    """Find a reader by its name."""
    module, colon, function = name.partition(":")
    if colon:
        return getattr(importlib.import_module(module), function)
    from tests.campaigns.fuzz.targets import BY_NAME

    return BY_NAME[name].read


def _warm_up(corpus: Path, names: list[str]) -> None:
    """Import what is imported at first use; each valid input must be read."""
    if not (known := [name for name in names if ":" not in name]):
        return
    from tests.campaigns.fuzz.targets import BY_NAME

    for target in (BY_NAME[name] for name in known):
        gc.freeze()  # what lives by now is not looked at again
        for seed in sorted(corpus.glob(target.seeds)):
            found = run(target.name, seed.parent if target.whole else seed)
            if found["outcome"] != "read":
                raise RuntimeError(f"{target.name} of {seed}: {found}")


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
