"""The default path keeps to what every platform has.

No Windows or macOS machine runs here, so one is imitated: in a process of its own, the packages
find no POSIX module and no POSIX-only function of ``os`` and ``signal``, text files must name
their encoding, and a file that is open or mapped can't be replaced or removed.
``make lint`` checks the same statically, by mypy with ``--platform win32``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = r"""
import builtins, os, signal, sys, types, warnings
from pathlib import Path

OURS = ("icbs", "solvers", "problems")
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "triton", "tty"}
MISSING = {
    "os": "O_DIRECTORY O_CLOEXEC fork forkpty fchmod getegid geteuid getgid getloadavg getpgid "
    "getpriority getuid killpg mkfifo nice openpty posix_spawn process_cpu_count pread pwrite "
    "sched_getaffinity sched_setaffinity sched_yield sendfile setuid statvfs sync sysconf uname "
    "wait3 wait4",
    "signal": "SIGALRM SIGHUP SIGKILL SIGQUIT SIGUSR1 alarm pthread_kill setitimer",
}


def without(module, names):
    kept = {k: v for k, v in vars(module).items() if k not in names.split()}
    stripped = types.ModuleType(module.__name__)
    stripped.__dict__.update(kept)
    return stripped


STRIPPED = {name: without(sys.modules[name], names) for name, names in MISSING.items()}
plain_import = builtins.__import__


def strict_import(name, globals=None, locals=None, fromlist=(), level=0):
    caller = (globals or {}).get("__name__", "")
    if level == 0 and caller.split(".")[0] in OURS:
        if name.split(".")[0] in POSIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in STRIPPED:
            return STRIPPED[name]
    return plain_import(name, globals, locals, fromlist, level)


builtins.__import__ = strict_import
for name in ("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)  # for whoever asks the real module


def in_use(path):
    real = os.path.realpath(path)
    maps = [line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").open()
            if len(line.split(maxsplit=5)) == 6]
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    return any(name == real or name.startswith(real + "/") for name in maps + links)


def refusing(function):
    def guarded(*paths, **options):
        for path in paths:
            if isinstance(path, (str, Path)) and str(path).startswith(os.getcwd()) and in_use(path):
                raise PermissionError(13, "used by this process", str(path))
        return function(*paths, **options)
    return guarded


if Path("/proc/self/maps").exists():
    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        setattr(os, name, refusing(getattr(os, name)))
        setattr(STRIPPED["os"], name, getattr(os, name))
warnings.filterwarnings("error", category=EncodingWarning, module=r"(icbs|solvers|problems)\b")
"""

JOB = r"""
import numpy as np
import torch
from torch import nn

import icbs, problems, solvers
from icbs import Pruner, load_compressed, load_masks, save_compressed
from icbs.cli import app

rng = np.random.default_rng(0)
made = [problems.CardinalityQUBO.from_factors(rng.normal(size=(8, 64)), rng.normal(size=64), k=32)
        for _ in range(3)]
alone = solvers.solve(made[0], "anneal", seed=0)
together = solvers.solve(made, "anneal", seed=0)
assert alone.energy <= made[0].energy(np.arange(64) < 32)
assert [s.x.sum() for s in together] == [32, 32, 32]

torch.manual_seed(0)


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 3))


inputs = torch.randn(400, 24)
batches, loss = [(inputs, (inputs[:, 0] > 0).long())], nn.CrossEntropyLoss()
settings = dict(density=0.3, block_size=64, passes=6, checkpoint_every=2, seed=0,
                acceptance_samples=100, gradient_samples=200, curvature_samples=64)
run = Path.cwd() / "run"
whole = Pruner(**settings).prune(model(), batches, loss)
Pruner(**settings).prune(model(), batches, loss, run=run, callback=lambda p: p.step == 4)
result = Pruner.resume(run, model(), batches, loss)
assert result.passes == 6
assert all(torch.equal(result.masks[name], mask) for name, mask in whole.masks.items())
masks = load_masks(run / "masks.safetensors")
assert all(torch.equal(masks[name], mask) for name, mask in whole.masks.items())
pruned = model()
icbs.apply_masks(pruned, masks)
for _ in range(2):  # the second writes over the first, which was read in between
    save_compressed(pruned.state_dict(), masks, run / "small.safetensors")
    state, again = load_compressed(run / "small.safetensors")
assert all(torch.equal(state[name], value) for name, value in pruned.state_dict().items())
print("done with", len(result.history), "blocks")
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "ignore", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_default_path_needs_no_posix(tmp_path):
    done = run(PRELUDE + JOB, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "done with" in done.stdout


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import os; os.sched_getaffinity(0)", "AttributeError"),
        ("import fcntl", "ModuleNotFoundError"),
        ("from signal import SIGKILL", "ImportError"),
        ("from pathlib import Path; Path('notes').write_text('x')", "EncodingWarning"),
    ],
)
def test_the_imitation_refuses(tmp_path, line, complaint):
    """Otherwise the test above would pass for any code."""
    (tmp_path / "solvers.py").write_text(line, encoding="utf-8")
    script = PRELUDE + "sys.path.insert(0, os.getcwd())\nimport solvers\n"
    done = run(script, tmp_path)
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_the_imitation_holds_files(tmp_path):
    script = PRELUDE + (
        "file = Path.cwd() / 'open'\n"
        "with file.open('w', encoding='utf-8'):\n"
        "    try:\n"
        "        os.replace(file, Path.cwd() / 'moved')\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
        "file.unlink()\n"
    )
    assert run(script, tmp_path).stdout.strip() == "refused"
