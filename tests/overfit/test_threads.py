"""Batches side by side: each once, as many as may be, and errors that end the rest."""

import threading
import time

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.overfit.threads import in_threads, one_thread
from ocd_core.progress import no_progress

CHUNKS = [slice(i, i + 2) for i in range(0, 20, 2)]


@pytest.fixture
def _two_threads(set_threads):
    set_threads(2)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_chunk_is_done_once_by_so_many_threads(threads: int) -> None:
    running: set[int] = set()
    most: list[int] = []
    done: list[slice] = []
    seen: list[int] = []
    all_began = threading.Barrier(threads)

    def work(chunk: slice) -> None:
        running.add(threading.get_ident())
        if chunk in CHUNKS[:threads]:
            all_began.wait(60)
        most.append(len(running))
        assert torch.get_num_threads() == 1
        time.sleep(0.01)
        done.append(chunk)
        running.discard(threading.get_ident())

    in_threads(CHUNKS, threads, work, lambda count, _: seen.append(count))
    assert sorted(done, key=lambda chunk: chunk.start) == CHUNKS
    assert max(most) == threads
    assert seen == [chunk.stop for chunk in CHUNKS]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_an_error_ends_the_rest() -> None:
    done = []

    def work(chunk: slice) -> None:
        if chunk.start == 4:
            raise UserError("no such row")
        time.sleep(0.01)
        done.append(chunk)

    chunks = [slice(i, i + 1) for i in range(2000)]  # 10 s
    with pytest.raises(UserError, match="no such row"):
        in_threads(chunks, 2, work, no_progress)
    assert len(done) < len(chunks) - 1
    assert torch.get_num_threads() == 2


def test_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with one_thread() as found:
        assert torch.get_num_threads() == 1
    assert found == before
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
