"""The README's Python is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.icbs.test_tasks import data  # noqa: F401

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_there_is_something_to_run():
    assert len(SNIPPETS) >= 2
    assert not re.search(r"\b[A-Z]+_TABLE\b", README.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the snippets run, in order: later ones read what earlier ones wrote."""
    return tmp_path_factory.mktemp("readme")


@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.split("\n", 1)[0])
def test_snippet_runs(snippet, data, folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(folder)
    exec(compile(snippet, str(README), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
