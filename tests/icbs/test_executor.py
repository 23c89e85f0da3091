"""Blocks of a pass solved elsewhere: the same run, whatever solves them."""

from __future__ import annotations

from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

from icbs import Pruner, Result
from tests.icbs.conftest import make_toy

SETTINGS = {"density": 0.3, "block_size": 32, "passes": 3, "solver": "steepest", "seed": 1}


class Counting(ThreadPoolExecutor):
    """Threads that count what they are given."""

    given = 0

    def submit(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.given += 1
        return super().submit(*args, **kwargs)


def run(executor: Executor | None = None) -> Result:
    toy = make_toy()
    return Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, executor=executor)


def same(one: Result, two: Result) -> bool:
    moved = [[row.moved for row in result.history] for result in (one, two)]
    return moved[0] == moved[1] and all(
        torch.equal(mask, two.masks[name]) for name, mask in one.masks.items()
    )


def test_every_block_goes_through_the_executor():
    with Counting(2) as threads:
        found = run(threads)
    assert threads.given == len(found.history)
    assert same(found, run())


def test_processes_give_the_same_run():
    with ProcessPoolExecutor(1) as processes:
        assert same(run(processes), run())


def test_a_local_dask_cluster_gives_the_same_run():
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        assert same(run(executor), run())


def test_a_resumed_run_goes_through_it_too(tmp_path):
    toy = make_toy()
    whole = Pruner(**SETTINGS | {"passes": 2}).prune(
        toy.model, toy.batches, toy.loss, run=tmp_path / "run"
    )
    toy = make_toy()
    with Counting(2) as threads:
        more = Pruner.resume(
            tmp_path / "run", toy.model, toy.batches, toy.loss, executor=threads, passes=3
        )
    assert threads.given == len(more.history) - len(whole.history)
