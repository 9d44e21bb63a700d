"""Run the shards of a store: in this process, in processes on this machine, or on a dask cluster.

Each shard is a separate task, a function only of its rows, and making it twice is harmless. So a worker that dies costs
only its current shard, which another worker makes again, and any number of workers gives the same store. How shards are
run does not determine an artifact: it is chosen on the command line or in the environment, never in params.

A job is a small value that can be pickled; each worker opens it once (the base network, the data).
"""

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

from ocd_core.errors import UserError
from ocd_core.files import is_shortage

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext

ExecutorName = Literal["serial", "process", "dask"]
MakeShard = Callable[[int], None]
# checks a shard that a worker reports as finished, and returns what is wrong with it
Accept = Callable[[int], Sequence[object]]

_TRIES = 3
_JOIN_SECONDS = 60  # how long to wait for a cluster's first worker


class Job(Protocol):
    """What workers do. Equal jobs give the same shards."""

    def open(self, worker: int) -> MakeShard:
        """Load what is needed, in worker number `worker` of this machine; the function makes one shard."""


@dataclass(frozen=True)
class Execution:
    """How shards are run.

    workers: how many on this machine; None for one per GPU or core. scheduler: the address of a dask scheduler, whose
    workers are used; without it, `dask` starts a cluster on this machine.

    Raises:
        UserError: the combination is not valid.
    """

    executor: ExecutorName = "serial"
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in get_args(ExecutorName):
            raise UserError(f"unknown executor {self.executor!r}; known are {', '.join(get_args(ExecutorName))}")
        if self.workers is not None and self.executor == "serial":
            raise UserError("--workers (OCD_WORKERS) needs --executor process or dask (OCD_EXECUTOR)")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1 (found {self.workers})")
        if self.scheduler is not None and self.executor != "dask":
            raise UserError("--scheduler (OCD_SCHEDULER) needs --executor dask (OCD_EXECUTOR)")
        if self.scheduler is not None and self.workers is not None:
            raise UserError("--workers starts workers here, --scheduler uses those of a cluster; give only one of them")

    @classmethod
    def choose(cls, executor: str, workers: int | None, scheduler: str | None) -> "Execution":
        """From the options of a command line."""
        return cls(cast(ExecutorName, executor), workers, scheduler)


SERIAL = Execution()


def run_shards(job: Job, shards: Sequence[int], execution: Execution, accept: Accept, default_workers: int = 1) -> None:
    """Make all these shards in other processes or on other machines.

    A shard whose worker dies or fails, or which `accept` finds damaged, is made again, three times in all.

    Args:
        accept: called in this process, once for each shard that a worker has made.
        default_workers: used if `execution` gives no number.

    Raises:
        UserError: a shard failed three times, or a worker raised a UserError.
    """
    assert execution.executor != "serial"
    workers = execution.workers or default_workers
    if execution.executor == "process":
        _in_processes(job, shards, min(workers, len(shards)), accept)
    else:
        _on_dask(job, shards, min(workers, len(shards)), execution.scheduler, accept)


class _Failures:
    """How often each shard failed."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def note(self, shard: int, problem: str, tries: int = 1) -> None:
        self._count[shard] += tries
        if self._count[shard] >= _TRIES:
            raise UserError(
                f"shard {shard} failed {_TRIES} times, the last time because {problem}; finished shards are kept, so "
                "the same command resumes from there"
            )


def _problem(shard: int, error: Exception | str | None, accept: Accept) -> str:
    """What is wrong with a shard that a worker has finished; empty if nothing is."""
    if isinstance(error, UserError):
        raise error
    return str(error) if error else "; ".join(map(str, accept(shard)))


# -- processes on this machine


class _Worker:
    """A process, and its current shard."""

    def __init__(self, context: "SpawnContext", job: Job, number: int) -> None:
        self.connection, theirs = context.Pipe()
        self.number = number
        self.shard: int | None = None
        self.dead = False
        self._process = context.Process(target=_serve, args=(theirs, job, number), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection ends when it dies

    def give(self, shard: int) -> None:
        self.shard = shard
        with suppress(BrokenPipeError):  # it is dead, which `answer` reports
            self.connection.send(shard)

    def answer(self) -> Exception | str | None:
        """What went wrong with the shard; None if nothing did. Waits for it."""
        try:
            answer: Exception | str | None = self.connection.recv()
            return answer
        except (EOFError, OSError):
            self._process.join()
            self.dead = True
            return f"its worker {_ending(self._process.exitcode)}"

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _ending(status: int | None) -> str:
    """How a process ended, in words; a status below 0 is a signal."""
    if status == -signal.SIGKILL:
        return (
            "was killed, as the system does when memory runs out: give fewer --workers (OCD_WORKERS) or a smaller "
            "overfit.memory_mb"
        )
    return f"ended with exit status {status}"


def _in_processes(job: Job, shards: Sequence[int], workers: int, accept: Accept) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has run torch hangs
    waiting, failures = deque(shards), _Failures()
    team: dict[int, _Worker] = {}
    try:
        while waiting or any(worker.shard is not None for worker in team.values()):
            for number in range(workers):
                if waiting and number not in team:
                    team[number] = _Worker(context, job, number)
                if waiting and team[number].shard is None:
                    team[number].give(waiting.popleft())
            busy = {worker.connection: worker for worker in team.values() if worker.shard is not None}
            for connection in wait(list(busy)):
                worker = busy[cast(Connection, connection)]
                shard, worker.shard = worker.shard, None
                assert shard is not None
                problem = _problem(shard, worker.answer(), accept)
                if worker.dead:
                    worker.end()
                    del team[worker.number]
                if problem:
                    failures.note(shard, problem)
                    waiting.append(shard)
    finally:
        for worker in team.values():
            worker.end()


def _serve(connection: Connection, job: Job, number: int) -> None:
    """The loop of a worker: open the job, then make shard after shard until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    make: MakeShard | None = None
    while True:
        shard = connection.recv()
        answer: Exception | str | None = None
        try:
            make = make or job.open(number)
            make(shard)
        except UserError as error:
            answer = error
        except Exception as error:
            answer = _shortage(error) if is_shortage(error) else traceback.format_exc()
        connection.send(answer)


def _shortage(error: Exception) -> UserError:
    """What the machine lacked: another try would lack it, too."""
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"too little memory, or too few threads or open files, for a worker ({type(error).__name__}: {reason}); "
        "nothing is damaged: use fewer --workers or a smaller overfit.memory_mb, and run the same command again"
    )


def _end_with_parent() -> None:
    """End with the parent: a worker that outlives it would write into a folder that another process may own."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# -- dask


def _on_dask(job: Job, shards: Sequence[int], workers: int, scheduler: str | None, accept: Accept) -> None:
    try:
        from distributed import KilledWorker, as_completed
    except ImportError as error:
        raise UserError("--executor dask needs an extra: pip install 'ocd-core[distributed]'") from error
    waiting, failures = deque(shards), _Failures()
    running: dict[str, int] = {}
    with _client(workers, scheduler) as client:
        done = as_completed()

        def submit() -> None:
            shard = waiting.popleft()
            future = client.submit(_make_on_dask, job, shard, pure=False)
            running[future.key] = shard
            done.add(future)

        # submit no more than can run at once: dask counts the death of a worker against all tasks that wait for it
        for _ in range(min(len(waiting), max(1, sum(client.nthreads().values())))):
            submit()
        for future in done:
            shard = running.pop(future.key)
            failure = future.exception() if future.status != "finished" else None
            problem = _problem(shard, failure, accept)
            if problem:  # the scheduler itself retries a shard whose worker died, several times
                failures.note(shard, problem, _TRIES if isinstance(failure, KilledWorker) else 1)
                waiting.append(shard)
            if waiting:
                submit()


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is None:
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": _TRIES - 1}),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=_JOIN_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        if is_shortage(error):
            raise
        raise UserError(f"no dask scheduler answers at {scheduler}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_JOIN_SECONDS)
        except TimeoutError as error:
            raise UserError(f"the scheduler at {scheduler} has no workers: start some with 'dask worker'") from error
        yield client


_one_at_a_time = threading.Lock()  # a worker may have several threads, but the base network serves one at a time
_opened: list[tuple[Job, MakeShard]] = []  # the last job of this process


def _make_on_dask(job: Job, shard: int) -> None:
    with _one_at_a_time:
        if not _opened or _opened[0][0] != job:
            _opened[:] = [(job, job.open(0))]
        _opened[0][1](shard)
