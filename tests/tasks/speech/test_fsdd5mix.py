"""Mixtures of digits: made from the right recordings, seeded, levelled, and in LibriMix's layout."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ocd_core.errors import UserError
from ocd_core.samples import SPLITS, whole_split
from ocd_core.tasks.speech.audio import is_clipped
from ocd_core.tasks.speech.fsdd5mix import PARTS, read_recordings, write_mixtures
from ocd_core.tasks.speech.quality import mixture_si_sdr
from ocd_core.tasks.speech.task import SpeechSeparation
from tests.tasks.speech.recordings import NETWORK, RATE, speech_data

COUNTS = {"train": 3, "dev": 2, "test": 2}
SPEAKERS = ("a", "b", "c", "d", "e", "f")


def write_recordings(root: Path) -> Path:
    """Six speakers, one digit, twelve recordings each; every recording is a tone of its own frequency."""
    rows = []
    (root / "wav").mkdir(parents=True)
    for number, speaker in enumerate(SPEAKERS):
        for index in range(12):
            name = f"wav/0_{speaker}_{index}.wav"
            time = np.arange(3000 + 100 * index) / RATE
            soundfile.write(root / name, 0.2 * np.sin(2 * np.pi * hertz(number, index) * time), RATE)
            split = "test" if index < 5 else "train"
            rows.append({"file": name, "speaker": speaker, "digit": 0, "index": index, "split": split})
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def hertz(speaker: int, index: int) -> float:
    return 200.0 + 500 * speaker + 40 * index


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("fsdd") / "raw")


@pytest.fixture(scope="module")
def mixtures(recordings: Path) -> Path:
    dest = recordings.parent / "mixtures"
    write_mixtures(recordings, dest, seed=0, counts=COUNTS)
    return dest


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".wav", ".csv")
    }


def test_the_same_seed_gives_the_same_bytes(recordings: Path, mixtures: Path, tmp_path: Path) -> None:
    write_mixtures(recordings, tmp_path / "again", seed=0, counts=COUNTS)
    assert hashes(tmp_path / "again") == hashes(mixtures)
    write_mixtures(recordings, tmp_path / "other", seed=1, counts=COUNTS)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(mixtures).values())


def heard(wave: np.ndarray) -> set[float]:
    """The frequencies of a source, to 10 Hz, in windows of 0.1 s."""
    found = set()
    for window in wave[: len(wave) // 800 * 800].reshape(-1, 800):
        spectrum = np.abs(np.fft.rfft(window))
        if spectrum.max() > 2:
            found.add(10.0 * int(spectrum.argmax()))
    return found


def test_sources_are_single_speakers_from_the_recordings_of_their_part(mixtures: Path) -> None:
    own = {"test": range(5), "dev": range(5, 9), "train": range(9, 12)}
    for part, count in COUNTS.items():
        names = sorted(p.stem for p in (mixtures / part / "mix_clean").iterdir())
        assert len(names) == count
        for name in names:
            speakers = [piece.split("-")[0] for piece in name.split("_")]
            assert len(set(speakers)) == 5
            for i, speaker in enumerate(speakers):
                wave, rate = soundfile.read(mixtures / part / f"s{i + 1}" / f"{name}.wav")
                assert (len(wave), rate) == (16_000, RATE)
                allowed = {hertz(SPEAKERS.index(speaker), index) for index in own[part]}
                found = heard(wave)
                assert found
                assert all(min(abs(f - a) for a in allowed) < 20 for f in found)  # recordings are 40 Hz apart


def test_mixtures_are_sums_at_the_levels_of_their_sources(mixtures: Path) -> None:
    levels = []
    for path in (mixtures / "train" / "mix_clean").iterdir():
        mixture, _ = soundfile.read(path, dtype="int16")
        sources = [soundfile.read(path.parents[1] / f"s{i}" / path.name, dtype="int16")[0] for i in range(1, 6)]
        np.testing.assert_array_equal(mixture, np.sum(sources, 0))
        assert not is_clipped(mixture / 2**15)
        levels += [10 * np.log10(np.mean((source / 2**15) ** 2)) for source in sources]
    assert min(levels) > -27.6
    assert max(levels) < -22.4
    assert np.std(levels) > 0.5


def test_the_loader_reads_what_was_written(mixtures: Path, tmp_path: Path) -> None:
    domain = task_of_five(mixtures)
    summary = domain.prepare(tmp_path)
    assert summary["licence"].startswith("CC BY-SA 4.0")
    assert {split: values["samples"] for split, values in summary["splits"].items()} == {
        "train": 3,
        "val": 2,
        "test": 2,
    }
    for split in SPLITS:
        batch = (opened := domain.open(tmp_path, split)).batch(whole_split(opened))
        np.testing.assert_allclose(batch.inputs[0], batch.target.sum(1), atol=1e-6)
        assert (mixture_si_sdr(batch.inputs[0], batch.target) < 0).all()


def task_of_five(folder: Path) -> SpeechSeparation:
    return SpeechSeparation(speech_data(folder, sources=5), "gated_lstm", {**NETWORK, "sources": 5})


def test_bad_folders(recordings: Path, mixtures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists; name a new folder"):
        write_mixtures(recordings, mixtures)
    with pytest.raises(UserError, match=r"metadata\.csv does not exist"):
        write_mixtures(tmp_path, tmp_path / "out")
    (tmp_path / "metadata.csv").write_text("file,speaker\n")
    with pytest.raises(UserError, match="lacks the columns index, split"):
        read_recordings(tmp_path)
    (tmp_path / "metadata.csv").write_text("file,speaker,index,split\n")
    with pytest.raises(UserError, match="the part train has 0 speakers; 5 are needed"):
        read_recordings(tmp_path)


def test_real_recordings_are_divided_as_their_readme_says(shared_data: Path) -> None:
    parts = read_recordings(shared_data / "speech" / "fsdd")
    counts = {part: sum(map(len, found.by_speaker.values())) for part, found in parts.items()}
    assert counts == {"train": 2460, "dev": 240, "test": 300}
    assert set(parts) == set(PARTS)
    assert all(len(found.by_speaker) == 6 for found in parts.values())
