"""The estimate of the time left."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icbs.formatting import clock
from icbs.report.evaluations import Evaluator
from icbs.run.history import BlockRecord
from icbs.run.result import seconds_a_sample


def row(step: int, seconds: float, samples: int = 4) -> BlockRecord:
    values = {field.name: 0 for field in dataclasses.fields(BlockRecord)}
    return BlockRecord(**values | {"step": step, "seconds": seconds, "samples": samples})


@given(st.floats(0, 1e4), st.floats(0.01, 1e3), st.integers(2, 40), st.integers(1, 5))
def test_time_before_the_first_pass_is_not_counted(before, pace, passes, layers):
    history = [row(i, before + pace * (i + 1)) for i in range(passes) for _ in range(layers)]
    found = seconds_a_sample(history, passes, before + pace * passes)
    assert found == pytest.approx(pace / 4, rel=1e-6, abs=1e-6)


def test_the_last_passes_determine_the_speed():
    slow = [row(i, 100.0 * (i + 1)) for i in range(20)]
    fast = [row(20 + i, 2000.0 + i + 1) for i in range(20)]
    assert seconds_a_sample(slow + fast, 40, 2020.0) == pytest.approx(1 / 4)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=10), st.floats(0.01, 1e3))
def test_passes_that_grow_take_longer(sizes, each):
    ends = [each * sum(sizes[: step + 1]) for step in range(len(sizes))]
    history = [row(step, ends[step], size) for step, size in enumerate(sizes)]
    assert seconds_a_sample(history, len(sizes), ends[-1]) == pytest.approx(each)
    # A pass in which no layer had a block leaves no row.
    gap = [row(0, 10.0), row(2, 30.0), row(3, 40.0)]
    assert seconds_a_sample(gap, 4, 40.0) == pytest.approx(10 / 4)


def test_the_estimate_after_one_pass_and_before_any():
    assert seconds_a_sample([row(0, 7.0)], 1, 7.0) == 7 / 4
    assert seconds_a_sample([row(0, 7.0)], 1, 7.0, started=3.0) == 4 / 4
    assert math.isnan(seconds_a_sample([], 0, 3.0))


@given(st.integers(1, 30), st.integers(1, 10))
def test_evaluations_to_come_are_counted_as_they_are_made(passes, every):
    made: list[int] = []
    evaluator = Evaluator(lambda model: made.append(1) or {"loss": 0.0}, every)
    left = []
    for step in range(passes + 1):
        progress = SimpleNamespace(step=step, passes=passes, seconds=0.0, model=None)
        evaluator(progress)
        evaluator.seconds = 10.0
        left.append((len(made), evaluator.remaining(progress)))
    assert all(remaining == 10.0 * (len(made) - done) for done, remaining in left)


def test_times_are_written_as_clocks_do():
    assert [clock(s) for s in (0, 61, 3599.6, 7325)] == ["0:00", "1:01", "1:00:00", "2:02:05"]
