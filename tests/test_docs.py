"""The documentation's examples are run as they stand, page by page.

A page's blocks run in order, in one namespace and one folder. The info line of a block says how:

- ``python``: run; ``{.python .slow}``: with the slow tests; ``{.python .norun}``: never;
  with ``title="FILE"``, in any language: written to a file.
- ``console``: each line after ``$`` that calls ``icbs`` is run by the command's own code;
  other commands are checked by name (targets of make, extras of pip).
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from icbs import DataError
from icbs.cli import app
from tests.icbs.test_tasks import data  # noqa: F401

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(
    r"^(?P<indent> *)```(?:\{\.(?P<braced>[\w .]+)\}|(?P<lang>\w*))(?P<rest>[^\n]*)\n"
    r"(?P<body>.*?)^ *```",
    re.DOTALL | re.MULTILINE,
)
#: Blocks that can't run here, on all pages together: they need a network, or hours.
MOST_NORUN = 8


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    marks: frozenset[str]
    body: str
    line: int
    title: str = ""
    """Name of a file that the block is written to."""


def blocks_of(page: Path) -> list[Block]:
    text, found = page.read_text(encoding="utf-8"), []
    for match in FENCE.finditer(text):
        language, *marks = (match["braced"] or match["lang"] or "text").split(" .")
        line = text.count("\n", 0, match.start()) + 2
        indent = len(match["indent"])
        body = "".join(row[indent:] or "\n" for row in match["body"].splitlines(keepends=True))
        title = re.search(r'title="([^"]+)"', match["rest"])
        found.append(Block(language, frozenset(marks), body, line, title[1] if title else ""))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs(block: Block) -> bool:
    return block.language in ("python", "console") and "norun" not in block.marks


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    # Padding makes the lines of a traceback those of the page.
    code = "\n" * (block.line - 1) + block.body
    # Without the future features of this file.
    exec(compile(code, str(page), "exec", dont_inherit=True), namespace)


def commands(block: Block) -> list[str]:
    """Return the commands after ``$``, lines that end in a backslash joined."""
    text = block.body.replace("\\\n", " ")
    return [line[2:].strip() for line in text.splitlines() if line.startswith("$ ")]


def run_console(block: Block) -> None:
    for command in commands(block):
        words = shlex.split(command, comments=True)
        if words[0] != "icbs":
            check_command(words)
            continue
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}{done.exception!r}"


def check_command(words: list[str]) -> None:
    """Check that what a command that is not run names is there."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets, words
    elif words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), words
    else:
        assert words[0] in ("python", "pytest", "git", "cd", "export"), words


def run_page(page: Path, *, slow: bool) -> None:
    """Run a page's blocks; slow ones need the quick ones before them."""
    module = ModuleType("__page__")
    sys.modules[module.__name__] = module  # classes of a page can be pickled
    for block in blocks_of(page):
        if block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        if block.title or not runs(block) or ("slow" in block.marks and not slow):
            continue
        if block.language == "python":
            run_python(block, page, vars(module))
        else:
            run_console(block)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to run in."""
    here = tmp_path / "page"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    return here


WITH_CODE = [page for page in PAGES if any(map(runs, blocks_of(page)))]
WITH_SLOW = [page for page in WITH_CODE if any("slow" in b.marks for b in blocks_of(page))]


@pytest.mark.page
@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_quick_examples_run(page, folder, data):  # noqa: F811
    """With small images in place of Fashion-MNIST."""
    torch.manual_seed(0)
    run_page(page, slow=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
@pytest.mark.parametrize("page", WITH_SLOW, ids=name_of)
def test_slow_examples_run(page, folder):
    try:
        run_page(page, slow=True)
    except DataError as error:
        if "pip can't download" in str(error):
            pytest.skip(f"the model or its texts can't be fetched: {error}")
        raise


def test_examples_are_there():
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert sum(block.language == "python" and runs(block) for block in blocks) >= 25
    assert sum("norun" in block.marks for block in blocks) <= MOST_NORUN
    assert {mark for block in blocks for mark in block.marks} <= {"slow", "norun"}


def test_a_wrong_example_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n```python\nx = 1\n```\n\n- item\n\n    ```python\n    assert x == 2\n    ```\n"
    )
    with pytest.raises(AssertionError):
        run_page(page, slow=False)
    page.write_text("```console\n$ icbs solve nothing.npz\n```\n")
    with pytest.raises(AssertionError, match="nothing"):
        run_page(page, slow=False)
    page.write_text("```console\n$ make nothing\n```\n")
    with pytest.raises(AssertionError, match="nothing"):
        run_page(page, slow=False)


def table_rows(text: str) -> list[list[str]]:
    rows = [line.strip()[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in row] for row in rows]


def test_quoted_figures_are_those_measured():
    """The overview of results says what the pages that benchmarks write say."""
    measured = {}
    for part in (ROOT / "benchmarks/results/pruning.md").read_text("utf-8").split("\n## ")[1:]:
        for level, method, _, figure, *_ in table_rows(part)[2:]:
            measured[part[:4], level, method.split(" (")[0].lower()] = figure
    model, compared = "", 0
    overview = (ROOT / "docs/results/index.md").read_text("utf-8")
    for row in table_rows(overview)[2:]:
        model = row[0][:4] or model
        level = row[1].removeprefix("density ")
        for method, quoted in zip(
            ("magnitude", "wanda", "sparsegpt", "icbs"), row[2:], strict=False
        ):
            figure = float(re.match(r"[\d.]+", measured[model, level, method])[0])
            number = quoted.removesuffix(" %")
            digits = len(number.partition(".")[2])
            # Half a unit of the last digit; a half itself may go either way.
            assert abs(float(number) - figure) <= 0.5001 * 10**-digits, (model, level, method)
            compared += 1
    assert compared == 28


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_words_are_plain(page):
    """The documentation says things as a reader would search for them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8")).lower()
    found = [
        word for word in ("anew", "begun", "aside", "unsaid") if re.search(rf"\b{word}\b", text)
    ]
    found += re.findall(r"\b(?:is|are) no \w+", text)
    assert not found


@pytest.mark.parametrize("package", ["icbs", "problems", "solvers"])
def test_the_reference_names_all_that_is_public(package):
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/reference").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    module = importlib.import_module(package)
    for name in module.__all__:
        owner = getattr(getattr(module, name), "__module__", package).partition(".")[0]
        assert {f"{package}.{name}", f"{owner}.{name}"} & listed, name
