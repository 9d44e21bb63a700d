"""Overfit on several cores of this process: each thread takes whole batches, and computes them with one thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from ocd_core.progress import Progress


@contextmanager
def one_thread() -> Iterator[int]:
    """A sum depends on how many threads share it, but a row must not depend on where it is computed.

    Yields the number of threads before and afterwards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def in_threads(chunks: Sequence[slice], threads: int, work: Callable[[slice], None], progress: Progress) -> None:
    """Do the work of each chunk, up to `threads` of them at the same time; the order in which they end is open.

    An operation of a small batch gains little from a second thread, two batches side by side nearly double the speed.

    Args:
        work: writes what it computes where nothing else does. The first error ends the rest, and is raised.
        progress: called with the end of each chunk when it and all before it are done.
    """
    with (
        one_thread(),
        ThreadPoolExecutor(max(1, min(threads, len(chunks))), "overfit", torch.set_num_threads, (1,)) as pool,
    ):
        waiting = [pool.submit(work, chunk) for chunk in chunks]
        try:
            for chunk, done in zip(chunks, waiting, strict=True):
                done.result()
                progress(chunk.stop, "")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
