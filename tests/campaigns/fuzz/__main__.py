"""``python -m tests.campaigns.fuzz``: the whole campaign, with a table at the end."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.campaigns.fuzz.campaign import campaign
from tests.campaigns.fuzz.corpus import make
from tests.campaigns.fuzz.targets import TARGETS


def main() -> int:
    """Run it; whether an input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="targets whose names begin so")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    given = parser.parse_args()
    targets = [target for target in TARGETS if target.name.startswith(given.only or "")]
    if given.keep is not None:
        given.keep.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "corpus")
        tally = campaign(
            Path(folder) / "corpus", Path(folder) / "scratch",
            count=given.count, seed=given.seed, targets=targets, keep=given.keep,
        )  # fmt: skip
    for failure in tally.failures:
        about = f"{failure['target']} ({failure['input']}, {failure['size']} bytes)"
        print(f"{failure['outcome']}: {about}: {failure['error']}")
        print(failure.get("trace", ""))
    print(tally.table())
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
