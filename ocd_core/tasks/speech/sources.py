"""Mixtures and their sources in LibriMix's layout (Cosentino et al., 2020).

    <path>/metadata/mixture_<part>_mix_clean.csv    mixture_ID, mixture_path, source_1_path, ..., length
    <path>/<part>/mix_clean/<mixture_ID>.wav        and s1, s2, ... beside mix_clean

The paths in the metadata belong to the machine that made the mixtures, so files are found by folder and ID.

Dims: C sources, T samples.
"""

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.files import path_of
from ocd_core.tasks.speech.audio import audio_info, check_rate, is_clipped, read_audio
from ocd_core.tasks.speech.params import SpeechData

LICENCE = "LICENCE.txt"
SHORTEST = 1024  # samples: a window of the spectrogram, from which I(x) is made


@dataclass(frozen=True)
class Mixture:
    """The files of one mixture, and the names of its speakers, if its ID tells them."""

    name: str
    mixture: Path
    sources: tuple[Path, ...]
    speakers: tuple[str, ...] | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The mixture, then its sources."""
        return self.mixture, *self.sources


@dataclass
class Counts:
    """What is kept, but belongs into every report. silent: sources; clipped: files; short: for a part of training."""

    silent: int = 0
    clipped: int = 0
    short: int = 0


def licence_of(data: SpeechData) -> str | None:
    """The first line of the folder's licence file; None if there is no file or that line is empty.

    Raises:
        UserError: the file is not UTF-8.
    """
    path = path_of(data.path) / LICENCE
    if not path.is_file():
        return None
    with _utf8(path), path.open(encoding="utf-8") as file:
        return file.readline().strip() or None


@contextlib.contextmanager
def _utf8(path: Path) -> Iterator[None]:
    """Wraps reading a file.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error


def list_mixtures(data: SpeechData, part: str, size: int | None) -> list[Mixture]:
    """The mixtures of a part, in the order of its metadata.

    Raises:
        UserError: the folder or its metadata is missing or not as expected, or there are fewer than `size`.
    """
    root = path_of(data.path)
    table = root / "metadata" / f"mixture_{part}_mix_clean.csv"
    if not table.is_file():
        raise UserError(
            f"{table} does not exist; data.path must be a folder in LibriMix's layout with a part {part!r} (for the "
            "mixtures of digits: python -m ocd_core.tasks.speech.fsdd5mix)"
        )
    with _utf8(table), table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        wanted = ["mixture_ID", *(f"source_{i + 1}_path" for i in range(data.sources))]
        missing = [c for c in wanted if c not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{table} lacks the columns {', '.join(missing)} (data.sources is {data.sources})")
        if f"source_{data.sources + 1}_path" in (reader.fieldnames or ()):
            raise UserError(f"{table} has mixtures of more than {data.sources} sources; set data.sources")
        names = [row["mixture_ID"] for row in reader]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise UserError(f"{table} {f'lists {twice[0]} twice' if twice else 'lists no mixtures'}")
    if size is not None and size > len(names):
        raise UserError(f"{table} lists {len(names)} mixtures, fewer than the {size} that are asked for")
    folders = [root / part / folder for folder in ("mix_clean", *(f"s{i + 1}" for i in range(data.sources)))]
    found = []
    for name in names[:size]:
        mixture, *sources = (folder / f"{name}.wav" for folder in folders)
        found.append(Mixture(name, mixture, tuple(sources), _speakers(name, data.sources)))
    return found


def _speakers(name: str, sources: int) -> tuple[str, ...] | None:
    """From an ID such as 1919-142785-0045_6319-275224-0016, which joins the sources' own IDs."""
    parts = name.split("_")
    return tuple(part.split("-")[0] for part in parts) if len(parts) == sources else None


def check_heads(mixtures: Sequence[Mixture], data: SpeechData) -> tuple[list[int], bool]:
    """The samples of each mixture (at `sample_rate`), and whether 16 bits hold all of them exactly.

    Raises:
        UserError: a file is missing or unreadable, has several channels or another rate, the lengths of a mixture and
            its sources differ, or it is shorter than a window of the spectrogram.
    """
    lengths, exact = [], True
    for mixture in mixtures:
        infos = [audio_info(path) for path in mixture.files]
        for path, info in zip(mixture.files, infos, strict=True):
            check_rate(path, info, data.sample_rate, data.resample)
            if (info.length, info.rate) != (infos[0].length, infos[0].rate):
                raise UserError(
                    f"{path} has {info.length} samples at {info.rate} Hz, its mixture {infos[0].length} at "
                    f"{infos[0].rate} Hz; sources must be as long as their mixture"
                )
        exact = exact and all(info.is_16_bit for info in infos) and infos[0].rate == data.sample_rate
        length = -(-infos[0].length * data.sample_rate // infos[0].rate)  # as scipy's resample_poly
        check_length(mixture.mixture, length)
        lengths.append(length)
    return lengths, exact


def check_length(path: Path, length: int) -> None:
    """Refuse a recording that is shorter than a window of the spectrogram.

    Raises:
        UserError: it is.
    """
    if length < SHORTEST:
        raise UserError(f"{path} has {length} samples; at least {SHORTEST} are needed, a window of the spectrogram")


def read_mixtures(mixtures: Sequence[Mixture], data: SpeechData, counts: Counts) -> Iterator[npt.NDArray[np.float32]]:
    """Each mixture and its sources, float32 (1 + C, T); counts silent sources, clipped and short files.

    Raises:
        UserError: a file cannot be read, or a mixture or all of its sources are silent.
    """
    for mixture in mixtures:
        wave = np.stack([read_audio(path, data.sample_rate, data.resample) for path in mixture.files])
        silent = [bool((row == row[0]).all()) for row in wave]
        if silent[0] or all(silent[1:]):
            which = "" if silent[0] else "every source of "
            raise UserError(f"{which}{mixture.mixture} is silent; there is nothing to separate, so leave it out")
        counts.silent += sum(silent[1:])
        counts.clipped += sum(is_clipped(row) for row in wave)
        counts.short += data.train_seconds is not None and wave.shape[1] < data.train_seconds * data.sample_rate
        yield wave
