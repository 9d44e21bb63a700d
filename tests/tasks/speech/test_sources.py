"""LibriMix's folders: what is found, and every kind of bad input, each with one message."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ocd_core.errors import UserError
from ocd_core.tasks.speech.sources import (
    Counts,
    check_heads,
    licence_of,
    list_mixtures,
    read_mixtures,
)
from tests.tasks.speech.recordings import RATE, speech_data, voices, write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mixtures", lengths=(1600, 1700))


def read_all(root: Path, **changes: object) -> tuple[list[np.ndarray], list[int], bool, Counts]:
    data, counts = speech_data(root, **changes), Counts()
    mixtures = list_mixtures(data, "train", None)
    lengths, exact = check_heads(mixtures, data)
    return list(read_mixtures(mixtures, data, counts)), lengths, exact, counts


def first(root: Path, folder: str = "mix_clean") -> Path:
    return root / "train" / folder / "anna-0_ben-0.wav"


def test_mixtures_and_sources_are_those_of_the_files(root: Path) -> None:
    waves, lengths, exact, counts = read_all(root)
    assert lengths == [1600, 1700, 1600, 1700]
    assert exact
    assert counts == Counts()
    for number, wave in enumerate(waves):
        expected = voices("train", number, lengths[number])
        np.testing.assert_array_equal(wave[1:], expected.astype(np.float32))
        np.testing.assert_allclose(wave[0], expected.sum(0), atol=1e-6)


def test_speakers_are_in_the_ids(root: Path) -> None:
    mixtures = list_mixtures(speech_data(root), "train", 2)
    assert [mixture.speakers for mixture in mixtures] == [("anna", "ben"), ("ben", "cleo")]
    assert list_mixtures(speech_data(root), "dev", None)[0].mixture.parent == root / "dev" / "mix_clean"


def test_licence_is_read_if_there_is_one(root: Path) -> None:
    assert licence_of(speech_data(root)) is None
    (root / "LICENCE.txt").write_text("CC BY-SA 4.0\nand more\n")
    assert licence_of(speech_data(root)) == "CC BY-SA 4.0"
    (root / "LICENCE.txt").write_text("")
    assert licence_of(speech_data(root)) is None


def test_a_folder_of_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    (root / "LICENCE.txt").write_text("CC BY-SA 4.0\n")
    data = speech_data(Path("~") / root.name)
    assert licence_of(data) == "CC BY-SA 4.0"
    assert list_mixtures(data, "dev", None) == list_mixtures(speech_data(root), "dev", None)


def test_texts_that_are_not_utf8_are_refused(root: Path) -> None:
    (root / "LICENCE.txt").write_bytes(b"libert\xe9\n")
    with pytest.raises(UserError, match=r"LICENCE\.txt is not a text file in UTF-8"):
        licence_of(speech_data(root))
    table = root / "metadata" / "mixture_train_mix_clean.csv"
    table.write_bytes(table.read_bytes().replace(b"anna", b"ann\xe9"))
    with pytest.raises(UserError, match=r"mixture_train_mix_clean\.csv is not a text file in UTF-8"):
        list_mixtures(speech_data(root), "train", None)


def rewrite(root: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    path = root / "metadata" / "mixture_train_mix_clean.csv"
    with path.open(newline="") as file:
        rows = change(list(csv.DictReader(file)))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ["mixture_ID", "source_1_path", "source_2_path"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "lists no mixtures"),
        (lambda rows: [*rows, rows[0]], "lists anna-0_ben-0 twice"),
        (
            lambda rows: [{"mixture_ID": row["mixture_ID"]} for row in rows],
            "lacks the columns source_1_path, source_2_",
        ),
        (lambda rows: [row | {"source_3_path": ""} for row in rows], "mixtures of more than 2 sources"),
        (lambda rows: [rows[0] | {"mixture_ID": "other"}], r"other\.wav does not exist"),
    ],
)
def test_bad_metadata(root: Path, change: Callable[..., list[dict[str, str]]], message: str) -> None:
    rewrite(root, change)
    with pytest.raises(UserError, match=message):
        read_all(root)


def test_missing_folder_and_too_few_mixtures(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mixture_train_mix_clean\.csv does not exist; data\.path must be a folder in"):
        list_mixtures(speech_data(tmp_path / "nowhere"), "train", None)
    with pytest.raises(UserError, match="lists 4 mixtures, fewer than the 5 that are asked for"):
        list_mixtures(speech_data(root), "train", 5)


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, length)


@pytest.mark.parametrize(
    ("folder", "wave", "rate", "message"),
    [
        ("mix_clean", noise(1600), 16_000, r"mix_clean/.*has 16000 Hz, not data\.sample_rate"),
        ("s2", noise(1600), 16_000, r"s2/.*has 16000 Hz, not data\.sample_rate"),
        ("s2", noise(1599), RATE, r"s2/.*has 1599 samples at 8000 Hz, its mixture 1600 at 8000 Hz"),
        ("s1", np.stack([noise(1600)] * 2, 1), RATE, "s1/.*has 2 channels"),
        ("mix_clean", np.zeros(1600), RATE, r"^\S*mix_clean/\S* is silent"),
    ],
)
def test_bad_recordings(root: Path, folder: str, wave: np.ndarray, rate: int, message: str) -> None:
    soundfile.write(first(root, folder), wave, rate)
    with pytest.raises(UserError, match=message):
        read_all(root)


def test_recordings_shorter_than_a_window_are_refused(root: Path) -> None:
    for folder in ("mix_clean", "s1", "s2"):
        soundfile.write(first(root, folder), noise(1023), RATE)
    with pytest.raises(UserError, match="has 1023 samples; at least 1024 are needed"):
        read_all(root)


def test_silent_sources_are_counted_and_mixtures_of_silence_refused(root: Path) -> None:
    soundfile.write(first(root, "s2"), np.zeros(1600), RATE)
    assert read_all(root)[3] == Counts(silent=1)
    soundfile.write(first(root, "s1"), np.zeros(1600), RATE)
    with pytest.raises(UserError, match=r"every source of .* is silent; there is nothing to separate"):
        read_all(root)


def test_clipped_and_short_recordings_are_counted(root: Path) -> None:
    soundfile.write(first(root, "s1"), np.clip(30 * noise(1600), -1, 1), RATE)
    soundfile.write(first(root, "s2"), np.clip(30 * noise(1600), -1, 1), RATE)
    assert read_all(root, train_seconds=0.21)[3] == Counts(clipped=2, short=2)


def test_files_at_another_rate_are_resampled_if_allowed(root: Path) -> None:
    time = np.arange(3201) / 16_000
    for folder, hertz in (("mix_clean", 500), ("s1", 500), ("s2", 300)):
        soundfile.write(first(root, folder), 0.3 * np.sin(2 * np.pi * hertz * time), 16_000, subtype="FLOAT")
    waves, lengths, exact, _ = read_all(root, resample=True)
    assert not exact
    assert lengths[0] == waves[0].shape[1] == 1601
    expected = 0.3 * np.sin(2 * np.pi * 300 * np.arange(1601) / RATE)
    np.testing.assert_allclose(waves[0][2][200:-200], expected[200:-200], atol=2e-3)
