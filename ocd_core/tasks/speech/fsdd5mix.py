"""Mixtures of five speakers from the Free Spoken Digit Dataset, written as LibriMix's folders.

    python -m ocd_core.tasks.speech.fsdd5mix data/raw/fsdd data/raw/fsdd5mix

Each source is one speaker who says random digits, one after the other with short pauses, for two seconds. It is brought
to a level of its own, as the utterances of LibriMix are. The recordings of the parts are apart: the data set's own test
recordings make the part `test`, some of the others `dev`, the rest `train`.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from ocd_core.errors import UserError
from ocd_core.progress import progress_bar
from ocd_core.rng import numpy_generator
from ocd_core.tasks.speech.audio import read_audio, write_audio
from ocd_core.tasks.speech.sources import LICENCE

SOURCES = 5
RATE = 8000
_SECONDS = 2.0
_PAUSE = 0.1  # seconds, at most
_LEVELS = (-27.5, -22.5)  # dB of full scale (rms), the range of a source's level
_PEAK = 0.9  # of a mixture, at most
_DEV_INDEX = range(5, 9)  # recordings of each speaker and digit; 0 to 4 are the data set's test recordings
PARTS = {"train": 600, "dev": 60, "test": 120}

_LICENCE = "CC BY-SA 4.0 (Free Spoken Digit Dataset, Jakobovski et al.)"

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recordings:
    """The recordings of one part, by speaker."""

    by_speaker: dict[str, list[Wave]]

    def utterance(self, speaker: str, rng: np.random.Generator) -> Wave:
        """Digits of one speaker for two seconds, from a random moment on, without its mean, at a random level."""
        recordings, length = self.by_speaker[speaker], round(_SECONDS * RATE)
        parts: list[Wave] = []
        skipped = rng.integers(round(RATE * 0.3))
        while sum(map(len, parts)) < length + skipped:
            parts += [recordings[rng.integers(len(recordings))], np.zeros(rng.integers(round(_PAUSE * RATE)))]
        wave = np.concatenate(parts)[skipped : skipped + length]
        wave -= wave.mean()
        wave *= 10 ** (rng.uniform(*_LEVELS) / 20) / np.sqrt(np.mean(wave**2))
        return wave


def write_mixtures(source: Path, dest: Path, seed: int = 0, counts: dict[str, int] = PARTS) -> None:
    """Write `counts` mixtures of each part, `<part>/mix_clean`, `<part>/s1` … `s5` and `metadata`, 16 bit at 8 kHz.

    A mixture depends only on (seed, part, its number) and the recordings. The mixture of the quantised sources is
    exactly their sum.

    Raises:
        UserError: the recordings are missing or not as expected, or `dest` exists.
    """
    if dest.exists():
        raise UserError(f"{dest} exists; name a new folder")
    parts = read_recordings(source)
    dest.mkdir(parents=True)
    (dest / LICENCE).write_text(f"{_LICENCE}\n", encoding="utf-8")
    with progress_bar("mixtures", sum(counts.values())) as progress:
        done = 0
        for part, count in counts.items():
            rows = []
            for number in range(count):
                rows.append(_write_one(parts[part], dest, part, number, seed))
                progress(done := done + 1, part)
            table = dest / "metadata" / f"mixture_{part}_mix_clean.csv"
            table.parent.mkdir(exist_ok=True)
            with table.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)


def _write_one(recordings: Recordings, dest: Path, part: str, number: int, seed: int) -> dict[str, str | int]:
    rng = numpy_generator(seed, "fsdd5mix", part, number)
    names = sorted(recordings.by_speaker)
    speakers = [names[i] for i in rng.permutation(len(names))[:SOURCES]]
    sources = np.stack([recordings.utterance(speaker, rng) for speaker in speakers])
    sources *= min(1.0, _PEAK / np.abs(sources.sum(0)).max())
    sources = np.round(sources * 2**15) / 2**15
    name = "_".join(f"{speaker}-{number:04d}" for speaker in speakers)
    row: dict[str, str | int] = {"mixture_ID": name}
    for folder, wave in {"mix_clean": sources.sum(0), **{f"s{i + 1}": s for i, s in enumerate(sources)}}.items():
        path = dest / part / folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, wave, RATE)
        column = "mixture_path" if folder == "mix_clean" else f"source_{folder[1:]}_path"
        row[column] = str(path.relative_to(dest))
    return {**row, "length": sources.shape[1]}


def read_recordings(source: Path) -> dict[str, Recordings]:
    """The recordings of each part, from `metadata.csv` of the folder and the files that it lists.

    Raises:
        UserError: a file is missing or not as expected, or a part has fewer than five speakers.
    """
    table = source / "metadata.csv"
    if not table.is_file():
        raise UserError(f"{table} does not exist; it lists the recordings of the Free Spoken Digit Dataset")
    found: dict[str, dict[str, list[Wave]]] = {part: defaultdict(list) for part in PARTS}
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"file", "speaker", "index", "split"} - set(reader.fieldnames or ())
        if missing:
            raise UserError(f"{table} lacks the columns {', '.join(sorted(missing))}")
        for row in reader:
            part = "test" if row["split"] == "test" else "dev" if int(row["index"]) in _DEV_INDEX else "train"
            wave = read_audio(source / row["file"], RATE)
            found[part][row["speaker"]].append(wave.astype(np.float64))
    for part, by_speaker in found.items():
        if len(by_speaker) < SOURCES:
            raise UserError(f"{table}: the part {part} has {len(by_speaker)} speakers; {SOURCES} are needed")
    return {part: Recordings(dict(by_speaker)) for part, by_speaker in found.items()}


def main(
    source: Annotated[Path, typer.Argument(help="The folder of the data set, with metadata.csv.")],
    dest: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    seed: Annotated[int, typer.Option(help="Of the mixtures.")] = 0,
) -> None:
    """Write 5-speaker mixtures of spoken digits as LibriMix's folders."""
    try:
        write_mixtures(source, dest, seed)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
