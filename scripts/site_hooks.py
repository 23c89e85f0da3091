"""Hooks of mkdocs for this site.

- Notebooks, benchmark results, the changelog and CONTRIBUTING.md are added as pages.
- The references of the console command and of the settings are generated from the code, and the
  table of the library of problems from its index.
- Formulas are converted to MathML, which browsers render without a script.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
COMMANDS, SETTINGS, LIBRARY = "<!-- commands -->", "<!-- settings -->", "<!-- library -->"
COLUMNS = "<!-- table columns -->"
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)

ELSEWHERE = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="https?://[^"]*')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of ``docs``."""
    found: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "benchmarks" / "results").iterdir()):
        if path.suffix in (".html", ".md", ".png"):
            found[f"results/{path.name}"] = path.read_bytes()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found |= {f"tutorials/{name}": content for name, content in notebook(path).items()}
    for name in ("CONTRIBUTING", "CHANGELOG"):
        found[f"{name.lower()}.md"] = (ROOT / f"{name}.md").read_bytes()
    for name, content in found.items():
        files.append(File.generated(config, name, content=content))
    return files


def notebook(path: Path) -> dict[str, str | bytes]:
    """Convert a notebook with its outputs to a page and its figures."""
    names = {"unique_key": path.stem, "output_files_dir": ""}
    text, resources = MarkdownExporter().from_filename(str(path), resources=names)
    return {f"{path.stem}.md": text, **resources["outputs"]}


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replace the marks of a page by generated references."""
    written = {COMMANDS: commands, SETTINGS: settings, LIBRARY: library, COLUMNS: columns}
    for mark, write in written.items():
        if mark in markdown:
            markdown = markdown.replace(mark, write())
    return markdown


def commands() -> str:
    """Describe every command with its arguments and options, as Markdown."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from icbs.cli import app

    command = get_command(app)
    with command.make_context("icbs", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="icbs")
    # The page has its own title and introduction.
    return text[text.index("## `icbs ") :]


def settings() -> str:
    """Describe all settings by group, with allowed values and defaults, as Markdown."""
    from icbs.config.listing import FIELDS, GROUPS, default_of, values_of

    parts = []
    for heading, names in GROUPS.items():
        rows = ["| setting | takes | default |", "| --- | --- | --- |"]
        rows += [f"| `{name}` | {values_of(name)} | `{default_of(name)}` |" for name in names]
        texts = [f"`{name}`\n:   {_definition(FIELDS[name].description or '')}" for name in names]
        parts += [f"## {heading}", "\n".join(rows), *texts]
    return "\n\n".join(parts)


def columns() -> str:
    """Tabulate the columns of a comparison's table, as Markdown."""
    from solvers.comparison.table import COLUMNS as KNOWN

    rows = ["| column | type | meaning |", "| --- | --- | --- |"]
    rows += [f"| `{name}` | {kind} | {what} |" for name, (kind, what) in KNOWN.items()]
    return "\n".join(rows)


def library() -> str:
    """Tabulate the problems of the library, as Markdown."""
    from problems.library import table
    from problems.library.tables import markdown

    return markdown(table())


def _definition(docstring: str) -> str:
    """Write a docstring as the text of a definition list."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", docstring).replace("``", "`")
    return "\n\n    ".join(" ".join(part.split()) for part in text.split("\n\n"))


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Refuse a page that loads something from another host.

    Raises
    ------
    PluginError
        Naming what it would load.
    """
    if found := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found[0]}; pages must not need a network")
    return output


def on_page_content(content: str, **_: Any) -> str:
    """Convert the formulas of a page to MathML."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found["tag"] == "div" else "inline"
        return convert(html.unescape(found["tex"]).strip(), display=display)

    return FORMULA.sub(drawn, content)
