"""No spoilt file ends in an error that is not the project's own, in a hang, or in memory."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from icbs import load_masks
from tests.campaigns.fuzz import campaign as module
from tests.campaigns.fuzz import corpus as seeds
from tests.campaigns.fuzz.campaign import BAD, Tally, Worker, campaign
from tests.campaigns.fuzz.hostile import HOSTILE, masks_of_30000_by_30000
from tests.campaigns.fuzz.mutators import STRUCTURES, mutate
from tests.campaigns.fuzz.targets import BY_NAME, TARGETS, Target

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is measured in /proc"
)

#: Without language models and figures, whose libraries take seconds to import.
QUICK = [target for target in TARGETS if not target.name.startswith(("gguf", "model", "icbs re"))]


def said(tally: Tally) -> str:
    """What failed, for whoever reads the log."""
    lines = [f"{f['outcome']}: {f['target']} ({f['input']}): {f['error']}" for f in tally.failures]
    return "\n".join([*lines[:20], tally.table()])


def test_a_part_of_the_campaign(tmp_path):
    seeds.make(tmp_path / "corpus", language=False)
    tally = campaign(tmp_path / "corpus", tmp_path / "scratch", count=200, seed=0, targets=QUICK)
    assert tally.inputs >= 200 + sum(name in {t.name for t in QUICK} for name, _ in HOSTILE)
    assert not tally.failures, said(tally)
    assert set(tally.counts) == {target.name for target in QUICK}
    ends: Counter[str] = sum(tally.counts.values(), Counter())
    assert ends["read"] > 15  # what is spoilt a little can still be read
    assert ends["refused"] > 100


@pytest.mark.slow
def test_the_whole_campaign(tmp_path):
    seeds.make(tmp_path / "corpus")
    tally = campaign(tmp_path / "corpus", tmp_path / "scratch", count=10_000, seed=0)
    print(tally.table())
    assert not tally.failures, said(tally)


def test_the_same_seed_spoils_in_the_same_way(tmp_path):
    import random

    data = json.dumps({"a": [1, 2.5, "x"], "b": {"c": None}}).encode()
    for kind in STRUCTURES:
        first, second = (
            [mutate(draw, kind, data, b"other") for _ in range(50)]
            for draw in (random.Random(3), random.Random(3))
        )
        assert first == second
        assert len(set(first)) > 25


FAULTS = """
import os, time
from pathlib import Path


def read(path: Path) -> object:
    fault = path.read_text()
    if fault == "hang":
        while True:
            pass
    if fault == "wait":
        time.sleep(1000)
    if fault == "memory":
        return len(bytes(bytearray(400 << 20)))
    if fault == "died":
        os._exit(3)
    if fault == "untyped":
        raise ZeroDivisionError
    if fault == "refused":
        from icbs import DataError
        raise DataError("no")
    return None
"""


@pytest.mark.parametrize("kind", ["wait", pytest.param("hang", marks=pytest.mark.slow)])
def test_the_harness_sees_every_fault(tmp_path, monkeypatch, kind):
    """A reader with known faults, through the same worker: each is counted as what it is."""
    (tmp_path / "faults.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(module, "CPU_SECONDS", 2.0)
    monkeypatch.setattr(module, "WALL_SECONDS", 4.0 if kind == "wait" else 60.0)
    target = Target("faults:read", print, "", "bytes")
    worker, tally = Worker(tmp_path, [target]), Tally()
    try:
        for fault in ("read", "refused", "untyped", "memory", "died", "read", kind):
            path = tmp_path / "input"
            path.write_text(fault)
            tally.add(target, worker.read(target.name, path), fault, path.stat().st_size)
    finally:
        worker.close()
    counts = tally.counts[target.name]
    assert counts == {"read": 2, "refused": 1, "untyped": 1, "memory": 1, "died": 1, "hang": 1}
    assert [f["input"] for f in tally.failures] == ["untyped", "memory", "died", kind]
    assert all(f["outcome"] in BAD for f in tally.failures)


def test_an_earlier_reader_would_have_been_seen(tmp_path):
    """354 bytes that claim 30,000 × 30,000 are refused before memory is taken for them."""
    path = masks_of_30000_by_30000(tmp_path, Path())
    assert path.stat().st_size < 354
    with pytest.raises(BaseException, match="takes 112500000 bytes, but the file has") as caught:
        load_masks(path)
    assert type(caught.value).__name__ == "RunFolderError"
    assert BY_NAME["masks"].memory < 30000 * 30000
