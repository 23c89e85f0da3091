"""The first compilation of a kernel is announced, and no later one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
from solvers._numba import jit
from tests.solvers.test_compilation_notice import double, half
assert jit(double)(2) == 4 and jit(half)(2) == 1
"""


def double(x: int) -> int:
    return 2 * x


def half(x: int) -> int:
    return x // 2


def test_a_compilation_is_announced_once_and_a_cached_kernel_is_not(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    said = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    ]
    assert said == ["compiling kernels, once for this installation: up to half a minute\n", ""]
