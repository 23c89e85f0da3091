"""The public set on the command line: ``python -m problems.library --help``."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import IcbsError
from problems.files import write_text
from problems.library.best import improve, verify
from problems.library.catalogue import BEST, LibraryProblem, load, names, record_of, table
from problems.library.tables import COLUMNS, cells, markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 1 after printing an error in one line."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        run(options)
    except (IcbsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m problems.library", description="The public set of pruning problems."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def choice(added: Any) -> None:
        added.add_argument("names", nargs="*", metavar="NAME", help="problems; all if omitted")
        added.add_argument("--collection", choices=("small", "large", "all"), default="all")

    one = command("build", _build, "Write problems to files, bit for bit as they were made.")
    one.add_argument("folder", type=Path, help="where NAME.npz and NAME.json go")
    choice(one)
    choice(command("verify", _verify, "Rebuild problems; check hash, start, best state, bound."))
    one = command("table", _table, "List the problems.")
    one.add_argument("--format", choices=("text", "csv", "json", "markdown"), default="text")
    one = command("improve", _improve, "Record a better state, if it is one.")
    one.add_argument("name", metavar="NAME")
    one.add_argument("state", type=Path, help="text of 0 and 1, or .npy, shape (n,)")
    one.add_argument("--by", required=True, help="who found it, and how: solver, options, time")
    one.add_argument(
        "--file", type=Path, default=BEST, help="where best values are kept (the package's own)"
    )
    return parser


def _chosen(options: argparse.Namespace) -> list[str]:
    for name in options.names:
        record_of(name)
    return options.names or names(collection=options.collection)


def _build(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in _chosen(options):
        entry = load(name)
        entry.problem.save(options.folder / f"{name}.npz")
        text = json.dumps(described(entry), indent=1, ensure_ascii=False)
        write_text(options.folder / f"{name}.json", text + "\n")
        print(f"{name}  {entry.hash[:12]}")


def described(entry: LibraryProblem) -> dict[str, Any]:
    """Return an entry without its coefficients, for a JSON file; states as text."""
    fields = {key: value for key, value in vars(entry).items() if key != "problem"}
    states = {key: "".join(map(str, fields[key])) for key in ("start", "best")}
    return fields | states | {"n": entry.n, "k": entry.k, "collection": entry.collection}


def _verify(options: argparse.Namespace) -> None:
    for name in _chosen(options):
        entry = verify(name)
        print(f"{name}  {entry.hash[:12]}  as recorded", flush=True)


def _table(options: argparse.Namespace) -> None:
    rows = table()
    if options.format == "json":
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif options.format == "csv":
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif options.format == "markdown":
        print(markdown(rows))
    else:
        lines = [list(COLUMNS), *map(cells, rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(map(str.ljust, line, widths)).rstrip())


def _improve(options: argparse.Namespace) -> None:
    entry = improve(options.name, _state(options.state), by=options.by, file=options.file)
    print(f"{entry.name}: {entry.best_energy!r} is now the best value known ({options.file})")


def _state(path: Path) -> Any:
    """Read a state: ``.npy``, or a text whose digits 0 and 1 are its entries."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    text = "".join(path.read_text(encoding="utf-8").split())
    return [int(digit) if digit in "01" else digit for digit in text]


if __name__ == "__main__":
    raise SystemExit(main())
