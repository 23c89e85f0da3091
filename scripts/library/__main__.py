"""Make the public set of pruning problems from the models, and find its best values.

::

    python -m scripts.library make [RUN …]     # recipes and index, from models and data
    python -m scripts.library solve [NAME …]   # best values, bounds, proofs
    python -m scripts.library log              # benchmarks/results/library.md

Models and data come by ``icbs fetch``. Weights that are trained here and sums in torch may
differ from machine to machine, so that ``make`` gives other problems elsewhere; that is why the
package holds what it gave once, as integers. Both commands go on where they were stopped.
"""

from __future__ import annotations

import argparse

from scripts.library.log import write_log
from scripts.library.make import make
from scripts.library.solve import solve_all


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(prog="python -m scripts.library", description=__doc__)
    parser.add_argument("what", choices=("make", "solve", "log"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs, or problems; the missing")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a solver and problem")
    options = parser.parse_args()
    if options.what == "make":
        make(options.names)
    elif options.what == "solve":
        solve_all(options.names, options.seconds)
    else:
        write_log()


if __name__ == "__main__":
    main()
