"""Prepared mixtures of one split: written one after the other, read from a mapped file.

Dims: N mixtures, C sources, T samples.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.npy import ArrayFile
from ocd_core.rng import numpy_generator
from ocd_core.samples import Batch, SplitName
from ocd_core.tasks.prepared import need_file

_TRIES = 100  # draws for each source until a new speaker is found


def write_split(
    dest: Path, split: SplitName, waves: Iterable[npt.NDArray[np.float32]], lengths: Sequence[int], sources: int,
    exact: bool, speakers: Sequence[Sequence[str] | None],
) -> None:  # fmt: skip
    """Write `<split>.npy`, the mixtures with their sources end to end, and `<split>.json`, what else is known of them.

    Args:
        waves: each (1 + C, T), in ±1.
        exact: whether 16 bits hold all values; otherwise float32 is written.

    Raises:
        UserError: the disk is full.
    """
    shape = ((1 + sources) * sum(lengths),)
    with ArrayFile(dest / f"{split}.npy", np.int16 if exact else np.float32, shape) as audio:
        for wave in waves:
            audio.append(np.round(wave.ravel() * 2**15) if exact else wave.ravel())
    known = {"sources": sources, "lengths": list(lengths), "speakers": [s and list(s) for s in speakers]}
    write_json(dest / f"{split}.json", known)


class MixtureSplit:
    """Mixtures with their sources; a batch gives whole recordings.

    Recordings may differ in length. Then `one_by_one` is true, and a batch of several holds the first samples of each,
    as many as the shortest of them has: enough for layer scores and for training a control, but everything that is
    measured or stored of a recording takes it alone.
    """

    def __init__(self, prepared: Path, split: SplitName) -> None:
        self.name = split
        path = need_file(prepared / f"{split}.npy")
        known: dict[str, Any] = read_json(need_file(prepared / f"{split}.json"))
        self.lengths: list[int] = known["lengths"]
        self.sources: int = known["sources"]
        self.speakers: list[list[str] | None] = known["speakers"]
        try:
            self._audio = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            if is_shortage(error):
                raise
            raise UserError(f"{path} is damaged; run the stage prepare again ({error})") from error
        rows = (1 + self.sources) * np.array(self.lengths, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        if self._audio.shape != (self._starts[-1],):
            raise UserError(f"{path} does not hold {len(self)} mixtures; run the stage prepare again")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def one_by_one(self) -> bool:
        """Whether recordings differ in length."""
        return len(set(self.lengths)) > 1

    def wave(self, row: int, begin: int = 0, length: int | None = None) -> Tensor:
        """A mixture and its sources, or a part of them, float32 (1 + C, T); zeros follow if it is shorter."""
        whole = self._audio[self._starts[row] : self._starts[row + 1]].reshape(1 + self.sources, -1)
        part = np.asarray(whole[:, begin : None if length is None else begin + length])
        found = torch.from_numpy(part.astype(np.float32))
        if self._audio.dtype == np.int16:
            found /= 2**15
        missing = 0 if length is None else length - found.shape[1]
        return torch.nn.functional.pad(found, (0, missing)) if missing > 0 else found

    def batch(self, sample_id: Tensor) -> Batch:
        """Mixtures (N, T), targets (N, C, T), float32."""
        rows = sample_id.tolist()
        shortest = min((self.lengths[row] for row in rows), default=0)
        return _as_batch([self.wave(row, 0, shortest) for row in rows], sample_id, self.sources)

    def parts(self, sample_id: Tensor, length: int, seed: int, epoch: int) -> Batch:
        """Parts of `length` samples at random places, a function of (seed, epoch, mixture)."""
        waves = []
        for row in sample_id.tolist():
            rng = numpy_generator(seed, "part of a recording", self.name, epoch, row)
            waves.append(self.wave(row, int(rng.integers(max(self.lengths[row] - length, 0) + 1)), length))
        return _as_batch(waves, sample_id, self.sources)

    def new_mixtures(self, sample_id: Tensor, length: int, seed: int, epoch: int) -> Batch:
        """New mixtures of random sources of this split, each by another speaker; a function of (seed, epoch, mixture).

        Levels stay as they are, and each source starts at a random place of its recording.

        Raises:
            UserError: the speakers are not known, or there are fewer than sources.
        """
        known = self._known_speakers
        waves = []
        for sample in sample_id.tolist():
            rng = numpy_generator(seed, "dynamic mixing", self.name, epoch, sample)
            seen: set[str] = set()
            parts: list[Tensor] = []
            while len(parts) < self.sources:
                for _ in range(_TRIES):
                    row, source = int(rng.integers(len(self))), int(rng.integers(self.sources))
                    if known[row][source] not in seen:
                        break
                else:
                    raise UserError(f"data.dynamic_mixing: no {self.sources} speakers were found in {self.name}")
                seen.add(known[row][source])
                begin = int(rng.integers(max(self.lengths[row] - length, 0) + 1))
                parts.append(self.wave(row, begin, length)[1 + source])
            sources_CT = torch.stack(parts)
            waves.append(torch.cat([sources_CT.sum(0, keepdim=True), sources_CT]))
        return _as_batch(waves, sample_id, self.sources)

    @cached_property
    def _known_speakers(self) -> list[list[str]]:
        known = [s for s in self.speakers if s is not None]
        if len(known) < len(self):
            raise UserError(
                "data.dynamic_mixing needs the speakers, which a mixture_ID such as 1919-142785-0045_6319-275224-0016 "
                "tells; with other IDs, set it to false"
            )
        if len({name for names in known for name in names}) < self.sources:
            raise UserError(f"data.dynamic_mixing: {self.name} has fewer than {self.sources} speakers")
        return known


def _as_batch(waves: list[Tensor], sample_id: Tensor, sources: int) -> Batch:
    wave = torch.stack(waves) if waves else torch.zeros(0, 1 + sources, 0)
    return Batch((wave[:, 0],), wave[:, 1:], sample_id)
