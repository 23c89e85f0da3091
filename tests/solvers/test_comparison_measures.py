"""Measures of a comparison against hand-computed tables, and their properties."""

import math

import numpy as np
import pandas as pd
import pytest
from comparison_tables import drawn, run, table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from solvers.comparison.measures import (
    anytime_gap,
    costs_of,
    ecdf,
    expected_running_time,
    feasibility,
    gap,
    gaps_at,
    lowest_integral,
    par10,
    performance_profile,
    primal_integral,
    proofs,
    restarts,
    results,
    share_interval,
    shifted_geometric_mean,
    spelled,
    summary,
    summary_rows,
    time_to_solution,
    time_to_target,
)
from solvers.comparison.measures.overview import number, percent
from solvers.errors import TableError

finite = st.floats(-1e6, 1e6)
times_of_runs = st.lists(
    st.tuples(st.floats(1e-3, 1.0), st.floats(-10, 10)), min_size=0, max_size=6
)


def hand():
    """E* = 0 and E₀ = 1, so that energies are gaps; limits of 1 s."""
    return table(
        run("p", "a", 0, [(0.1, 0.5), (0.2, 0.01), (0.5, 0.0)], best_known=0.0),
        run("p", "a", 1, [(0.3, 0.02)], best_known=0.0),
        run("p", "b", 0, [(0.4, 2.0), (0.8, 0.25)], best_known=0.0),
        run("p", "b", 1, [], end=(1.0, np.nan), best_known=0.0),
    )


# --- gaps -----------------------------------------------------------------------------------------


def test_gap_by_hand():
    assert gap([3.0, 1.0, 5.0, np.nan], 1.0, 5.0) == pytest.approx(
        [0.5, 0.0, 1.0, np.nan], nan_ok=True
    )
    assert gap([9.0], 1.0, 5.0) == pytest.approx([2.0])
    # Rounding does not count as a gap.
    assert gap([0.1 + 0.2], 0.3, 1.0).tolist() == [0.0]
    # The start is the best state known.
    assert gap([1.0, 1.5], 1.0, 1.0).tolist() == [0.0, math.inf]


@given(finite, finite, st.floats(1e-2, 1e6), st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_gap_ignores_scale_and_shift(above, best, distance, scale, shift):
    energy, start = best + abs(above), best + distance
    moved = gap(scale * energy + shift, scale * best + shift, scale * start + shift)
    assert moved == pytest.approx(gap(energy, best, start), rel=1e-4, abs=1e-4)


@settings(max_examples=8)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_measures_ignore_scale_and_shift(scale, shift):
    frame = drawn(problems=3, seeds=2, incumbents=5)
    moved = frame.copy()
    for column in ("energy", "bound", "raw_energy", "best_known", "start_energy"):
        moved[column] = scale * moved[column] + shift
    was, now = results(frame), results(moved)
    assert now.runs["gap"].to_numpy() == pytest.approx(was.runs["gap"], abs=1e-6, nan_ok=True)
    assert primal_integral(now).to_numpy() == pytest.approx(primal_integral(was), abs=1e-6)


def test_best_known_is_undercut_by_an_answer():
    found = results(
        table(
            run("p", "a", 0, [(0.5, -1.0)], best_known=0.0, best_proved=True),
            run("q", "a", 0, [(0.5, 0.5)], best_known=0.0, best_proved=True),
        )
    )
    best = found.problems.set_index("problem")
    assert best["best"].to_dict() == {"p": -1.0, "q": 0.0}
    # A proof does not count if another answer is lower.
    assert best["proved"].to_dict() == {"p": False, "q": True}


def test_states_shown_before_a_run_was_killed_count():
    killed = run("p", "a", 0, [(0.1, 0.5)], end=(1.5, 0.5), status="timeout", best_known=0.0)
    assert results(table(killed)).runs["gap"].tolist() == [0.5]


def test_a_state_that_the_end_does_not_have_does_not_count():
    killed = run("p", "a", 0, [(0.1, -9.0)], end=(1.5, np.nan), status="timeout", best_known=0.0)
    boast = run("p", "b", 0, [(0.1, -9.0)], end=(1.0, 0.5), best_known=0.0)
    late = run("p", "c", 0, [(0.2, 0.75)], end=(1.2, 0.25), best_known=0.0)
    found = results(table(killed, boast, late))
    assert found.problems["best"].tolist() == [0.0]
    assert found.runs["gap"].tolist() == pytest.approx([math.nan, 0.5, 0.75], nan_ok=True)
    assert found.runs["late"].tolist() == [False, False, True]
    infeasible = [dict(r, feasible=r["row"] == "end") for r in run("p", "a", 0, [(0.1, 0.2)])]
    assert results(table(infeasible)).steps["seconds"].tolist() == [1.0]


def test_steps_are_strict_improvements():
    rows = run("p", "a", 0, [(0.1, 0.5), (0.1, 0.4), (0.2, 0.4), (0.3, 0.6), (0.4, 0.1)])
    steps = results(table(rows[::-1], run("p", "b", 0, [(0.5, 0.0)]))).steps
    mine = steps[steps["run"] == 0]
    assert mine[["seconds", "energy"]].to_numpy().tolist() == [[0.1, 0.4], [0.4, 0.1]]


def test_runs_without_end_are_counted():
    found = results(table(run("p", "a", 0, [(0.1, 0.5)]), run("p", "b", 0, [(0.1, 0.5)])[:-1]))
    assert (len(found.runs), found.unfinished) == (1, 1)


def test_gaps_at_by_hand():
    found = results(hand())
    expected = [[1, 0.5, 0.01, 0.0], [1, 1, 1, 0.02], [1, 1, 1, 0.25], [1, 1, 1, 1]]
    assert gaps_at(found, [0.05, 0.1, 0.2, 1.0]) == pytest.approx(np.array(expected))
    quartiles = anytime_gap(found, [1.0]).set_index("solver")
    assert quartiles.loc["a", ["q25", "median", "q75"]].tolist() == pytest.approx(
        [0.005, 0.01, 0.015]
    )


def test_primal_integral_by_hand():
    integral = primal_integral(results(hand()))
    # 0.1·1 + 0.1·0.5 + 0.3·0.01; 0.3·1 + 0.7·0.02; worse than the start until 0.8 s.
    assert integral.tolist() == pytest.approx([0.153, 0.314, 0.85, 1.0])
    best = lowest_integral(results(hand())).set_index("solver")
    assert best["lowest"].to_dict() == {"a": True, "b": False}
    assert best.loc["a", "primal_integral"] == pytest.approx((0.153 + 0.314) / 2)


@settings(max_examples=20)
@given(st.lists(times_of_runs, min_size=1, max_size=4), st.floats(0.05, 2.0))
def test_primal_integral_is_the_area_of_the_curve(runs, limit):
    rows = [
        run("p", "a", s, r, limit=limit, end=None if r else (limit, np.nan))
        for s, r in enumerate(runs)
    ]
    found = results(table(*rows))
    integral = primal_integral(found)
    assert integral.between(0, 1).all()
    edges = np.unique([0.0, limit, *found.steps["seconds"].clip(upper=limit)])
    middle = (edges[1:] + edges[:-1]) / 2
    area = gaps_at(found, middle) @ np.diff(edges) / limit
    assert integral.to_numpy() == pytest.approx(area, abs=1e-9)


# --- times ----------------------------------------------------------------------------------------


def test_times_by_hand():
    times = time_to_target(results(hand()), [0.02, 0.25])
    seconds = times.set_index(["target", "solver", "seed"])["seconds"]
    assert seconds[0.02].tolist() == pytest.approx([0.2, 0.3, math.inf, math.inf])
    assert seconds[0.25].tolist() == pytest.approx([0.2, 0.3, 0.8, math.inf])
    ert = expected_running_time(times).set_index(["target", "solver"])["ert"]
    assert ert.to_dict() == pytest.approx(
        {(0.02, "a"): 0.25, (0.02, "b"): math.inf, (0.25, "a"): 0.25, (0.25, "b"): 1.8}
    )
    penalised = par10(times).set_index(["target", "solver"])["par10"]
    assert penalised[0.25].to_dict() == pytest.approx({"a": 0.25, "b": 5.4})
    mean = shifted_geometric_mean(times).set_index(["target", "solver"])["mean"]
    assert mean[0.25]["b"] == pytest.approx(math.sqrt(1.8 * 2.0) - 1)
    assert mean[0.25]["a"] == pytest.approx(stats.gmean([1.2, 1.3]) - 1)


def test_a_failed_run_is_charged_its_limit():
    crash = run("p", "a", 0, [], end=(0.01, np.nan), status="failed", best_known=0.0)
    early = run("p", "b", 0, [], end=(0.01, np.nan), status="nothing", best_known=0.0)
    times = time_to_target(results(table(crash, early)), [0.1])
    assert times["spent"].tolist() == [1.0, 0.01]


def test_answers_after_the_grace_time_reach_no_target():
    late = run("p", "a", 0, [], end=(1.2, 0.0), best_known=0.0)
    soon = run("p", "b", 0, [], end=(1.05, 0.0), best_known=0.0)
    assert time_to_target(results(table(late, soon)), [0.1])["seconds"].tolist() == [math.inf, 1.05]


def test_time_to_solution_by_hand():
    tts = time_to_solution(time_to_target(results(hand()), [0.25])).set_index("solver")
    # All runs of a reach it by 0.3 s; half of them by 0.2 s would need 6.6 runs.
    assert tts.loc["a", ["p", "tts", "successes"]].tolist() == pytest.approx([1.0, 0.3, 2])
    assert tts.loc["b", "tts"] == pytest.approx(0.8 * math.log(0.01) / math.log(0.5))
    low, high = stats.beta.ppf([0.025, 0.975], [1, 2], [2, 1])
    assert tts.loc["b", ["p_low", "p_high"]].tolist() == pytest.approx([low, high])
    assert tts.loc["b", "tts_low"] == pytest.approx(
        0.8 * max(1, math.log(0.01) / math.log(1 - high))
    )
    assert tts.loc["b", "tts_high"] == pytest.approx(0.8 * math.log(0.01) / math.log(1 - low))
    never = time_to_solution(time_to_target(results(hand()), [0.02])).set_index("solver").loc["b"]
    assert never["tts"] == never["tts_high"] == math.inf
    assert never["tts_low"] == pytest.approx(math.log(0.01) / math.log(math.sqrt(0.025)))


def test_restarts():
    assert restarts(0.0) == math.inf
    assert restarts(1.0) == restarts(0.995) == 1.0
    assert restarts(0.9) == pytest.approx(2.0)


@given(st.integers(1, 30), st.data())
def test_interval_holds_the_share(runs, data):
    successes = data.draw(st.integers(0, runs))
    low, high = share_interval(successes, runs)
    assert 0 <= low <= successes / runs <= high <= 1
    # By its definition: each tail has probability 0.025.
    if successes:
        assert stats.binom.sf(successes - 1, runs, low) == pytest.approx(0.025)
    if successes < runs:
        assert stats.binom.cdf(successes, runs, high) == pytest.approx(0.025)


# --- distributions --------------------------------------------------------------------------------


def test_ecdf_by_hand():
    curve = ecdf(time_to_target(results(hand()), [0.02, 0.25]))
    a, b = (curve[curve["solver"] == s][["seconds", "share"]].to_numpy().tolist() for s in "ab")
    assert a == [[0.2, 0.5], [0.3, 1.0]]
    assert b == [[0.8, 0.25]]


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_ecdf_is_scipys(seed):
    times = time_to_target(results(drawn(problems=4, seeds=2, incumbents=6, seed=seed)))
    for solver, curve in ecdf(times).groupby("solver"):
        mine = times.loc[times["solver"] == solver, "seconds"]
        theirs = stats.ecdf(mine.replace(math.inf, 1e9)).cdf
        assert curve["share"].to_numpy() == pytest.approx(theirs.evaluate(curve["seconds"]))
        assert curve["share"].is_monotonic_increasing
        assert curve["seconds"].is_unique
        assert curve["share"].between(0, 1).all()


costs = st.lists(
    st.lists(st.one_of(st.just(math.inf), st.floats(1e-3, 1e3)), min_size=3, max_size=3),
    min_size=1,
    max_size=8,
).map(lambda rows: pd.DataFrame(rows, columns=list("abc")))


@settings(max_examples=40)
@given(costs)
def test_profile_is_its_definition(matrix):
    profile = performance_profile(matrix)
    best = matrix.min(axis=1)
    solved = np.isfinite(best)
    for solver, curve in profile.groupby("solver"):
        assert curve["tau"].iloc[0] == 1
        assert curve["share"].is_monotonic_increasing
        for tau, share in zip(curve["tau"], curve["share"], strict=True):
            within = matrix.loc[solved, solver] / best[solved] <= tau
            assert share == pytest.approx(within.sum() / len(matrix))
        assert curve["share"].iloc[-1] == pytest.approx(np.isfinite(matrix[solver]).mean())
    at_one = profile[profile["tau"] == 1].groupby("solver")["share"].sum().sum()
    assert at_one >= solved.mean() - 1e-12


def test_profile_depends_on_the_set():
    matrix = pd.DataFrame({"a": [1.0, 1.0], "b": [2.0, 4.0], "c": [8.0, 2.0]})
    whole = performance_profile(matrix).set_index(["solver", "tau"])["share"]
    assert whole.to_dict() == {
        ("a", 1.0): 1.0,
        ("b", 1.0): 0.0,
        ("b", 2.0): 0.5,
        ("b", 4.0): 1.0,
        ("c", 1.0): 0.0,
        ("c", 2.0): 0.5,
        ("c", 8.0): 1.0,
    }
    rest = performance_profile(matrix, ["b", "c"]).set_index(["solver", "tau"])["share"]
    assert rest.to_dict() == {("b", 1.0): 0.5, ("b", 2.0): 1.0, ("c", 1.0): 0.5, ("c", 4.0): 1.0}


def test_costs_fill_what_was_not_run():
    ert = expected_running_time(
        time_to_target(
            results(table(run("p", "a", 0, [(0.5, 0.0)]), run("q", "b", 0, [(0.5, 0.0)]))), [0.1]
        )
    )
    matrix = costs_of(ert, "ert", 0.1)
    assert matrix.loc["p"].to_dict() == {"a": 0.5, "b": math.inf}


# --- proofs and penalties -------------------------------------------------------------------------


def test_proofs_by_hand():
    found = proofs(
        results(
            table(
                run("p", "a", 0, [(0.1, 0.0)], end=(0.3, 0.0), known="optimal", bound=0.0),
                run("p", "b", 0, [(0.1, 0.5)], bound=-0.25),
                run("p", "c", 0, [(0.1, 0.5)]),
                run("p", "d", 0, [(0.1, 0.5)], known="optimal", bound=0.5),
                run("p", "e", 0, [(0.1, 0.5)], bound=0.25),
            )
        )
    ).set_index("solver")
    assert found["proved"].to_dict() == dict.fromkeys("abcde", False) | {"a": True}
    assert found["refuted"].to_dict() == dict.fromkeys("abcde", False) | {"d": True, "e": True}
    assert found["seconds"].tolist() == [0.3, *[math.inf] * 4]
    assert found["bound_left"].tolist() == pytest.approx(
        [0.0, 0.75, math.nan, math.nan, math.nan], nan_ok=True
    )


def test_feasibility_is_of_penalty_solvers():
    found = feasibility(
        results(
            table(
                run("p", "a", 0, [(0.1, 0.0)], feasible_share=1.0),
                run("p", "b", 0, [(0.1, 0.25)], feasible_share=0.5, raw_energy=0.5, penalty=2.0),
                run("p", "b", 1, [(0.1, 0.25)], feasible_share=0.0),
            )
        )
    )
    assert found["solver"].tolist() == ["b", "b"]
    assert found[["share", "gap", "raw_gap"]].to_numpy().tolist() == [
        [0.5, 0.25, 0.5],
        [0, 0.25, 1],
    ]


# --- summary and refusals -------------------------------------------------------------------------


def test_summary_by_hand():
    crash = run("p", "c", 0, [], end=(0.1, np.nan), status="failed", best_known=0.0)
    foreign = run("p", "c", 1, [], end=(0.0, np.nan), status="unsupported", best_known=0.0)
    found = summary(pd.concat([hand(), table(crash, foreign)]))
    assert found["solver"].tolist() == ["a", "b", "c"]
    a, b, c = (found.iloc[i] for i in range(3))
    assert (a["runs"], a["at_best"], a["lowest"]) == (2, 0.5, 1.0)
    assert a["median_gap"] == pytest.approx(0.01)
    assert a["primal_integral"] == pytest.approx(0.2335)
    assert b["median_gap"] == pytest.approx(0.625)
    assert (b["failures"], c["failures"], c["unsupported"], c["lowest"]) == (1, 1, 1, 0)
    assert spelled(a)[:6] == ["a", "2", "50.0%", "0.0100", "0.234", "100%"]


def test_summary_as_text():
    rows = summary_rows(hand())
    assert rows[0][:3] == ["solver", "runs", "at best known"]
    assert [row[0] for row in rows[1:]] == ["a", "b"]
    assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, "0"), (1.0, "1.00"), (0.29, "0.290"), (123.4, "123"), (1234.5, "1234")],
        *[
            (2.6e-16, "2.6e-16"),
            (3e-4, "3.0e-4"),
            (2e5, "2.0e5"),
            (math.inf, "–"),
            (0.9999, "1.00"),
        ],
    ],
)
def test_numbers_as_text(value, text):
    assert number(value) == text


def test_almost_all_is_not_all():
    assert [percent(p) for p in (0, 1e-5, 0.5, 0.99999, 1)] == [
        "0%",
        "0.1%",
        "50.0%",
        "99.9%",
        "100%",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["energy"]), "lacks the columns energy"),
        (lambda t: t[t["row"] != "end"], "no finished run"),
        (lambda t: t.iloc[:0], "no finished run"),
        (lambda t: pd.concat([t, t.tail(1)]), "two rows 'end'"),
        (lambda t: t.assign(n=range(len(t))), "'p' have different values of n"),
        (lambda t: t.assign(seconds="soon"), "column of numbers"),
        (lambda t: t.assign(time_limit=0.0), "time_limit"),
        (lambda t: t.assign(start_energy=np.nan), "start_energy"),
        (lambda t: t.assign(seed=0.5), "column seed"),
    ],
)
def test_a_table_that_cannot_be_measured_is_refused(change, message):
    with pytest.raises(TableError, match=message):
        results(change(hand()))


def test_the_table_is_read_back_from_csv(tmp_path):
    frame = drawn(problems=3, seeds=2, incumbents=4)
    frame.to_csv(tmp_path / "table.csv", index=False)
    again = pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(summary(again), summary(frame))
