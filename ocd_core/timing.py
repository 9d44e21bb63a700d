"""How long stages take, recorded beside their artifacts: data/<task>/seconds, which neither git nor DVC tracks.

Times differ from run to run, whereas artifacts are repeatable bit for bit. So no artifact holds a time. Each record
names the artifact by its content, because DVC may put another one in its place, made in another run.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ocd_core.artifacts import Artifacts, is_main_process
from ocd_core.files import sha256_file
from ocd_core.pipeline import STAGES
from ocd_core.sealed import read_sealed, write_sealed

_LAST = ("manifest.json", "zarr.json")  # the file that is written last: of a folder, of an overfit store


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def write(self, run: Artifacts, stage: str, device: str, split: str = "", **more: Any) -> None:
        """Record a stage that has just finished: seconds on the clock and of processors, device, threads.

        The time of a stage that resumed is that of its last attempt. Processor time includes the worker processes that
        have ended. Starting Python and importing modules is not included.

        Args:
            device: `cpu` or `cuda`.
            split: of the stage `overfit`.
            more: further plain values.
        """
        import torch

        record = {
            "stage": stage,
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "device": torch.cuda.get_device_name() if device == "cuda" else device,
            "threads": torch.get_num_threads(),
            **more,
            "artifact": _identity(run, stage, split),
        }
        write_sealed(run.seconds(stage, split), record)


def recorded(work: Callable[[], Mapping[str, Any] | None], run: Artifacts, stage: str, device: str) -> None:
    """Do a stage's work and record how long it took; of several processes (`torchrun`), the main one records.

    Args:
        work: may return further plain values of the record.
        device: `cpu` or `cuda`.
    """
    watch = Stopwatch()
    more = work() or {}
    if is_main_process():
        watch.write(run, stage, device, **more)


def read_seconds(run: Artifacts, stage: str, split: str = "") -> dict[str, Any] | None:
    """What was recorded when the present artifact of a stage was made; None if that is not known.

    It is not known if DVC took the artifact from its cache, or if a command other than the stage's own made it.

    Raises:
        UserError: the record is damaged.
    """
    path = run.seconds(stage, split)
    if not path.is_file():
        return None
    record = read_sealed(path, "delete it: the report then shows a dash instead of the time")
    identity = _identity(run, stage, split)
    return record if identity is not None and record.get("artifact") == identity else None


def _identity(run: Artifacts, stage: str, split: str) -> str | None:
    """A hash of the file of an artifact that describes the others; None if there is no artifact."""
    folder = run.path(f"{STAGES[stage].makes}/{split}" if split else STAGES[stage].makes)
    return next((sha256_file(folder / name) for name in _LAST if (folder / name).is_file()), None)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
