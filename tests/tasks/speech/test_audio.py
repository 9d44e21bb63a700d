"""Files on disk: what is read as it is, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ocd_core.errors import UserError
from ocd_core.tasks.speech.audio import audio_info, is_clipped, read_audio, write_audio
from tests.tasks.speech.recordings import RATE


def tone(rate: int, hertz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    wave = np.round(tone(RATE) * 2**15) / 2**15
    write_audio(tmp_path / "a.wav", wave, RATE)
    info = audio_info(tmp_path / "a.wav")
    assert (info.length, info.rate, info.is_16_bit) == (4000, RATE, True)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), wave.astype(np.float32))


def test_values_beyond_full_scale_are_cut_off(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.array([2.0, -2.0, 0.25]), RATE)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), np.float32([1 - 2**-15, -1, 0.25]))


def test_another_rate_is_an_error_unless_it_may_be_resampled(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16_000), 16_000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"a\.wav has 16000 Hz, not data\.sample_rate \(8000 Hz\); convert it"):
        read_audio(path, RATE)
    found = read_audio(path, RATE, resample=True)
    middle = slice(500, -500)  # away from the filter's ends
    np.testing.assert_allclose(found[middle], tone(RATE)[middle], atol=2e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist or is not a file"),
        (b"", "not a readable audio"),
        (b"no audio" * 40, "not a readable"),
    ],
)
def test_files_that_are_no_audio(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.wav {message}|a\.wav is {message}"):
        read_audio(tmp_path / "a.wav", RATE)


def test_a_file_that_ends_early_is_shorter_than_its_mixture(tmp_path: Path) -> None:
    """The library trusts what is left of a wav file; `check_heads` then finds its length to be another one."""
    path = tmp_path / "a.wav"
    write_audio(path, tone(RATE), RATE)
    path.write_bytes(path.read_bytes()[:3000])
    assert len(read_audio(path, RATE)) == audio_info(path).length < 1500


def test_stereo_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), RATE)
    with pytest.raises(UserError, match=r"a\.wav has 2 channels; separation takes one"):
        read_audio(tmp_path / "a.wav", RATE)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.1, np.nan, 0.2]), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"a\.wav holds values that are not finite"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize(
    ("wave", "clipped"),
    [
        ([0.1, 1.0, 0.2, -1.0], False),
        ([0.5, 1.0, 1.0, 1.0, 0.5], True),
        ([-1.0, -1.0, -1.0], True),
        ([1.0, 1.0], False),
        ([], False),
    ],
)
def test_clipping_is_full_scale_three_times_in_a_row(wave: list[float], clipped: bool) -> None:
    assert is_clipped(np.array(wave)) is clipped
