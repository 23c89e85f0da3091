"""Settings of all tests.

This file is not in ``tests``, because pytest adds the folder of a ``conftest.py`` to the import
path, where ``tests/problems`` would shadow the package ``problems``.
"""

from __future__ import annotations

import os
import signal

import torch
from hypothesis import settings

# No deadline, which would fail correct tests on a busy machine. In CI examples are fixed, so that
# failures are caused by the change; elsewhere they are random.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")

# qdk decides on its telemetry when it is imported.
os.environ.setdefault("QDK_PYTHON_TELEMETRY", "none")

# The models in tests are too small for several threads.
torch.set_num_threads(1)

# A shell that starts the tests in the background may ignore Ctrl-C, which processes inherit: those
# that tests interrupt would not end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
