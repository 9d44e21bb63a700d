"""Executors with small jobs, and with the overfit stage: any number of workers, dying or not, gives one store."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ocd_core.errors import UserError
from ocd_core.overfit.executors import Execution, run_shards
from tests.faults.jobs import Notes, run_here
from tests.faults.support import assert_undisturbed, copy_run, overfit

SQUARES = {shard: str(shard**2) for shard in range(5)}


@pytest.fixture
def job(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two workers, as on a real cluster."""
    distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")
    import dask

    with (
        mock.patch.dict(os.environ),  # starting a worker leaves MALLOC_TRIM_THRESHOLD_ there
        dask.config.set({"distributed.scheduler.allowed-failures": 2}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0"
        ) as started,
    ):
        yield started.scheduler_address


@pytest.fixture(params=["process", "dask"])
def execution(request) -> Execution:
    if request.param == "process":
        return Execution("process", workers=2)
    return Execution("dask", scheduler=request.getfixturevalue("cluster"))


def sound(_shard: int) -> list[str]:
    return []


def test_a_shortage_in_a_worker_is_named_and_not_tried_again(job: Notes) -> None:
    job.ask("short", 2, 1)
    with pytest.raises(UserError, match=r"^too little memory.* for a worker .*3.00 GiB.*nothing is damaged.*--workers"):
        run_shards(job, range(5), Execution("process", workers=2), sound)
    assert 2 not in job.made()


def test_workers_make_all_shards_though_they_die_and_fail(job: Notes, execution: Execution) -> None:
    job.ask("die", 1, 2)
    job.ask("raise", 3, 2)
    seen = []
    run_shards(job, range(5), execution, lambda shard: seen.append(shard) or [])
    assert job.made() == SQUARES
    assert sorted(seen) == list(range(5))


@pytest.mark.parametrize(("what", "problem"), [("die", r"exit status 7|workers died"), ("raise", "shard 1 is unlucky")])
def test_a_shard_that_fails_three_times_is_an_error(job: Notes, execution: Execution, what, problem) -> None:
    job.ask(what, 1, 99)
    with pytest.raises(UserError, match=rf"(?s)shard 1 failed 3 times.*({problem})"):
        run_shards(job, range(5), execution, sound)
    assert int((job.folder / f"{what}-1").read_text()) == 96  # asked for exactly three times
    assert 1 not in job.made()


def test_a_users_mistake_is_passed_on_at_once(job: Notes, execution: Execution) -> None:
    job.ask("user", 2, 9)
    with pytest.raises(UserError, match=r"^shard 2 is the user's mistake$"):
        run_shards(job, range(5), execution, sound)
    assert int((job.folder / "user-2").read_text()) == 8


def test_a_shard_that_is_not_accepted_is_made_again(job: Notes, execution: Execution) -> None:
    refused = {4: ["it is damaged"]}
    run_shards(job, range(5), execution, lambda shard: refused.pop(shard, []))
    assert job.made() == SQUARES
    with pytest.raises(UserError, match=r"shard 4 failed 3 times.*it is damaged; it is bad"):
        run_shards(job, [4], execution, lambda _: ["it is damaged", "it is bad"])


def test_a_worker_that_the_system_kills_for_memory_is_named_with_a_remedy(job: Notes) -> None:
    job.ask("killed", 1, 99)
    message = r"shard 1 failed 3 times.*its worker was killed, as the system does when memory runs out: give fewer --w"
    with pytest.raises(UserError, match=message):
        run_shards(job, range(3), Execution("process", workers=1), sound)


def test_a_worker_opens_a_job_once(job: Notes) -> None:
    run_shards(job, range(5), Execution("process", workers=1), sound)
    assert job.openings() == 1
    assert job.made() == SQUARES


def test_workers_end_with_a_parent_that_is_killed(job: Notes) -> None:
    for shard in range(4):
        job.ask("sleep", shard, 1)
    parent = multiprocessing.get_context("spawn").Process(target=run_here, args=(job.folder, 2))
    parent.start()
    deadline = time.monotonic() + 60
    while job.openings() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    pids = [int(p.name.rpartition("-")[2]) for p in job.folder.glob("opened-*")]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.kill()
    parent.join()
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("threads", None, None), "unknown executor 'threads'"),
        (("serial", 2, None), "--workers .* needs --executor"),
        (("process", 0, None), "at least 1"),
        (("process", None, "tcp://a:1"), "--scheduler .* needs --executor dask"),
        (("dask", 2, "tcp://a:1"), "only one of them"),
    ],
)
def test_options_that_make_no_sense(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Execution.choose(*options)


@pytest.mark.parametrize(("device", "message"), [("tpu", "unknown device 'tpu'"), ("cuda", "torch sees no GPU")])
def test_devices_that_are_not_there(ready: Path, monkeypatch, device: str, message: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        overfit(ready, device=device)


def test_no_scheduler_there(job: Notes, monkeypatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("ocd_core.overfit.executors._JOIN_SECONDS", 1)
    with pytest.raises(UserError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_shards(job, [0], Execution("dask", scheduler="tcp://127.0.0.1:9"), sound)


@pytest.mark.parametrize("executor", ["process", "dask"])
def test_the_stage_gives_the_same_store(
    executor,
    ready: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch,
) -> None:
    """Though a worker dies in the middle of the shard that holds sample 20."""
    if executor == "dask":
        pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")
    root = copy_run(ready, tmp_path / "run")
    accident = tmp_path / "accident"
    accident.write_text("1 20")
    monkeypatch.setenv("OCD_TEST_ACCIDENT", str(accident))
    overfit(root, executor=executor, workers=2)
    assert accident.read_text() == "0 20"
    assert_undisturbed(root, undisturbed)
