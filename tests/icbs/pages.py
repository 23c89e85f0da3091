"""Commands with a page of their own, for tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from tests.solvers.browser import PATIENCE


def interrupted_with_page(*command: str) -> tuple[str, str]:
    """Run a command of icbs with ``--dashboard``, open its page, and send Ctrl-C.

    The command must then end with the status of an interruption, and the page with it.

    Returns
    -------
    page : str
        HTML of the page.
    said : str
        Output of the command after the address.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "icbs", *command, "--dashboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    killer = threading.Timer(2 * PATIENCE, process.kill)
    killer.start()
    line = next(line for line in process.stdout if "watching" in line)
    url = line[line.index("http") :].split()[0]
    page = urllib.request.urlopen(url, timeout=PATIENCE).read().decode()
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait() == 130
    killer.cancel()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=PATIENCE)
    return page, said
