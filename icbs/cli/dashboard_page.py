"""The dashboard of a command that prunes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Self

from rich.console import Console
from rich.text import Text


class DashboardPage:
    """Page of ``icbs watch`` that lasts as long as the context.

    Parameters
    ----------
    console : rich.console.Console
    wanted : bool
        Without it nothing is served.
    followed : str
        Name of what the page follows, and ends with.

    Raises
    ------
    MissingPackageError
        If Bokeh is not installed.
    """

    def __init__(self, console: Console, *, wanted: bool, followed: str = "run") -> None:
        from icbs.downloads.optional import optional

        if wanted:
            optional("bokeh")
        self.console, self.wanted, self.followed = console, wanted, followed
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def show(self, folder: Path) -> None:
        """Serve a folder that can be watched, and print the address; only the first call does."""
        if not self.wanted or self._process is not None:
            return
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "icbs", "watch", str(folder), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches only the run
        )
        Thread(target=self._repeat, args=(self._process,), daemon=True).start()

    def _repeat(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if self._ended:  # what the server says of its end
                break
            text = line.strip().replace(" (Ctrl-C ends it)", "")
            self.console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._ended = True
            self._process.terminate()
            self._process.wait()
            again = f"'icbs watch {self._folder}' shows it again"
            line = f"the page ends with the {self.followed}; {again}"
            self.console.print(Text(line), highlight=False, soft_wrap=True)
