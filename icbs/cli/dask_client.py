"""A Dask cluster as the executor of a command."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from icbs.errors import ConfigError

TIMEOUT = 5.0
"""Seconds to wait for a scheduler."""


@contextmanager
def executor_of(address: str | None) -> Iterator[Executor | None]:
    """Connect to a scheduler, and let go at the end; None without an address.

    Raises
    ------
    ConfigError
        If Dask is not installed, or no scheduler answers there.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            f"--dask needs {error.name or error}: pip install 'icbs-pruning[dask]'"
        ) from error
    try:
        client = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address!r} ({error}); start one: dask scheduler"
        ) from error
    with client:
        executor: Executor = client.get_executor()
        yield executor
