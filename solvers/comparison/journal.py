"""Folder of a campaign: its configuration, and a journal of finished runs.

The journal is append-only, with one line per run, which is on the disk before the next is
written. So a campaign that was killed at any moment continues with the missing runs.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from problems.files import remove_leftovers, write_text
from solvers.comparison.records import digest
from solvers.errors import CampaignError

MANIFEST, RUNS, LOCK = "campaign.json", "runs.jsonl", ".icbs.lock"
#: Folder of the problems that were passed as objects.
PROBLEMS = "problems"
_FORMAT = "icbs-campaign-1"


def is_comparison(path: Path) -> bool:
    """Whether a folder is that of a comparison of solvers."""
    return (path / MANIFEST).is_file()


class Journal:
    """Folder of a campaign, locked by one process at a time.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    identity : dict
        Settings that identify the campaign, in JSON's types.

    Raises
    ------
    CampaignError
        If the folder is another campaign's, in use, damaged, or not a campaign.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        self.done: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO | None = None
        self._lock: FileLock | None = None

    def __enter__(self) -> Journal:
        check_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._acquire()
        try:
            self._claim()
            self._recover()
            self._file = (self.folder / RUNS).open("ab")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def append(self, key: str, answer: Mapping[str, Any]) -> None:
        """Append a finished run; on return it is on the disk.

        Raises
        ------
        OSError
            If the disk is full.
        """
        assert self._file is not None
        line = _line(key, answer)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[key] = parse_line(line)

    def _acquire(self) -> None:
        lock = FileLock(
            self.folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False
        )
        try:
            lock.acquire()
        except Timeout:
            raise CampaignError(
                f"{self.folder} is in use by another process; wait for it to end, or choose "
                "another folder"
            ) from None
        except (OSError, NotImplementedError):  # a file system without locks, or not writable
            return
        self._lock = lock

    def _claim(self) -> None:
        """Write the manifest, or compare it with this campaign."""
        path = self.folder / MANIFEST
        if not path.exists():
            write_text(path, json.dumps(_manifest(self.identity), indent=1) + "\n")
            return
        remove_leftovers(self.folder)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before = found["campaign"]
            sound = found["format"] == _FORMAT and found["digest"] == digest(before)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CampaignError(f"{path} is damaged ({error}); choose another folder") from error
        if not sound:
            raise CampaignError(f"{path} is damaged, or of another version; choose another folder")
        if before != self.identity:
            raise CampaignError(
                f"{self.folder} contains another campaign: {_difference(before, self.identity)}; "
                "choose another folder, or remove this one"
            )

    def _recover(self) -> None:
        """Read the finished runs; drop a last line that was cut by a kill."""
        path = self.folder / RUNS
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                parsed = parse_line(line)
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):  # the last: never finished
                    whole = whole[: -len(line)]
                    break
                raise CampaignError(
                    f"line {number} of {path} is damaged ({error}); remove that line to "
                    "repeat the run"
                ) from error
            self.done.setdefault(parsed["run"], parsed)
        if len(whole) < len(content):
            with path.open("rb+") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())


def check_folder(folder: Path) -> None:
    """Raise an error if a folder contains something other than a campaign.

    Raises
    ------
    CampaignError
    """
    if folder.exists() and not folder.is_dir():
        raise CampaignError(f"{folder} is a file; name a folder for the results")
    if folder.exists() and not (folder / MANIFEST).exists():
        names = sorted(path.name for path in folder.iterdir())
        others = [name for name in names if name != PROBLEMS and not name.startswith(".")]
        if others:
            raise CampaignError(
                f"{folder} contains {others[0]!r} but not a campaign; choose an empty folder"
            )


def _manifest(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": _FORMAT, "digest": digest(identity), "campaign": identity}


def _line(key: str, answer: Mapping[str, Any]) -> bytes:
    x = answer.get("x")
    content: dict[str, Any] = {
        "run": key,
        "trace": answer["trace"],
        "end": answer["end"],
        "x": None if x is None else base64.b64encode(x).decode(),
    }
    content["sum"] = digest(content)
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_line(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is damaged.
    """
    content: dict[str, Any] = json.loads(line)
    if content.pop("sum") != digest(content):
        raise ValueError("its checksum does not match")
    return content


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the first setting in which two campaigns differ."""
    for name, value in now.items():
        was = before.get(name)
        if was == value:
            continue
        if isinstance(value, dict) and isinstance(was, dict):
            kind = name.removesuffix("s")
            part = min(key for key in {*value, *was} if value.get(key) != was.get(key))
            if part not in was:
                return f"it has no {kind} {part!r}"
            if part not in value:
                return f"it has another {kind}, {part!r}"
            name, was, value = f"{kind} {part!r}", was[part], value[part]
        return f"{name} was {_brief(was)}, and is {_brief(value)}"
    return "other settings"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
