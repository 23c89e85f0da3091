"""Make the public set of pruning problems from the models, and find its best values.

::

    python -m scripts.library blocks [RUN …]   # the pruner's blocks, from models and data
    python -m scripts.library make [RUN …]     # recipes and index, from the blocks
    python -m scripts.library solve [NAME …]   # best values, bounds, proofs
    python -m scripts.library log              # benchmarks/results/library.md

Models and data come by ``icbs fetch``. Blocks are saved before rounding (``--parts``), so that
``make`` needs the models for missing ones only. Weights that are trained here and sums in torch may
differ from machine to machine, so that ``blocks`` gives other problems elsewhere; that is why the
package holds what it gave once, as integers. All commands go on where they were stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.library.extract import extract
from scripts.library.log import write_log
from scripts.library.make import chosen, make
from scripts.library.solve import solve_all


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.library", description=__doc__)
    parser.add_argument("what", choices=("blocks", "make", "solve", "log"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs, or problems; the missing")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a solver and problem")
    parser.add_argument(
        "--parts",
        type=Path,
        default=Path("runs/library"),
        metavar="DIR",
        help="where blocks are kept before rounding (runs/library)",
    )
    options = parser.parse_intermixed_args()
    if options.what == "blocks":
        for run in chosen(options.names):
            extract(run, options.parts)
    elif options.what == "make":
        make(options.names, options.parts)
    elif options.what == "solve":
        solve_all(options.names, options.seconds)
    else:
        write_log()


if __name__ == "__main__":
    main()
