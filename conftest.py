"""Settings of all tests.

It lies here, and not in ``tests``, because pytest puts the folder of a ``conftest.py`` on the
path, where ``tests/problems`` would hide the package ``problems``.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# No deadline: on a busy machine it fails tests that are right.
# What CI finds is then of the change; new examples are tried wherever else tests run.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")

# The models here are tiny: a second thread only waits for the first.
torch.set_num_threads(1)
