"""Every notebook runs from top to bottom, and is kept with outputs that say nothing of a machine.

``make notebook-outputs`` runs them and stores what comes out.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from traitlets.config import Config

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
#: What a kept output may not say: where it was made, when, and what went wrong.
LOCAL = re.compile(
    r"/(?:home|root|tmp|work|usr|opt|Users)/|[A-Z]:\\\\|site-packages|localhost"
    r"|\b20\d\d-\d\d-\d\d|\b\d\d:\d\d:\d\d\b|Warning\b|Traceback"
)


@pytest.fixture
def kernels() -> Iterator[Config]:
    """Settings of kernels that listen on files of their own.

    Of the ports that are free when a kernel is asked for, one may be taken by the kernel of another
    process before it listens. Windows has ports only. A socket's path has 107 characters at most.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {"transport": "ipc", "ip": str(Path(folder, "kernel"))}
        yield Config({"KernelManager": {} if sys.platform == "win32" else files})


def cells_of(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run(path):
    cells = cells_of(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.output_type == "stream" for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_name_no_machine(path):
    for cell in cells_of(path):
        assert "execution" not in cell.metadata  # timestamps
        for output in cell.outputs:
            text = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
            assert not LOCAL.search(json.dumps([output.get("text", ""), text]))


@pytest.mark.parametrize(
    "text", ["/tmp/a", "x /home/me/y", "2026-01-02", "at 12:30:59", "UserWarning: x", "C:\\\\Users"]
)
def test_what_a_machine_would_say_is_found(text):
    assert LOCAL.search(json.dumps([text, {}]))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, kernels, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # the kernel's, as when outputs are stored
    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(notebook, timeout=1500, kernel_name="python3", config=kernels)
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        if "MissingDataError" in str(error) or "MissingPackageError" in str(error):
            pytest.skip(f"{path.stem} needs a package that can't be had here: {error!s:.300}")
        raise
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4
