"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: on a busy machine it fails tests that are right.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
