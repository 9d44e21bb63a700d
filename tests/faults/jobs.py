"""Jobs for the tests of executors, without torch, so that their workers start at once."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ocd_core.errors import UserError


@dataclass(frozen=True)
class Notes:
    """Writes a file a shard; what goes wrong is asked for by files `<what>-<shard>`, which hold how many times."""

    folder: Path

    def open(self, worker: int):
        (self.folder / f"opened-{worker}-{os.getpid()}").touch()
        return self.make

    def make(self, shard: int) -> None:
        if self._due("die", shard):
            os._exit(7)
        if self._due("killed", shard):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._due("raise", shard):
            raise ValueError(f"shard {shard} is unlucky")
        if self._due("user", shard):
            raise UserError(f"shard {shard} is the user's mistake")
        if self._due("short", shard):
            raise MemoryError("Unable to allocate 3.00 GiB")
        if self._due("sleep", shard):
            time.sleep(600)
        (self.folder / f"made-{shard}").write_text(str(shard**2))

    def ask(self, what: str, shard: int, times: int) -> None:
        (self.folder / f"{what}-{shard}").write_text(str(times))

    def _due(self, what: str, shard: int) -> bool:
        path = self.folder / f"{what}-{shard}"
        left = int(path.read_text()) if path.exists() else 0
        path.write_text(str(max(0, left - 1)))
        return left > 0

    def made(self) -> dict[int, str]:
        return {int(p.name.removeprefix("made-")): p.read_text() for p in self.folder.glob("made-*")}

    def openings(self) -> int:
        return len(list(self.folder.glob("opened-*")))


def run_here(folder: Path, workers: int) -> None:
    """For a process that is killed while its workers work."""
    from ocd_core.overfit.executors import Execution, run_shards

    run_shards(Notes(folder), range(4), Execution("process", workers), lambda _: [])
