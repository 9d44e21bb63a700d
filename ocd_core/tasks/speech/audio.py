"""Recordings on disk, by soundfile (extra `speech`): one channel, one sample rate, never silently changed."""

from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError

Wave = npt.NDArray[np.float32]

_FULL_SCALE = 1 - 2**-15  # the largest value of 16 bits
_IN_A_ROW = 3  # samples at full scale that show clipping


def soundfile() -> Any:
    """The package `soundfile`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise UserError(
            "recordings are read with the package soundfile; install it with: pip install 'ocd-core[speech]'"
        ) from error
    return soundfile


@dataclass(frozen=True)
class AudioInfo:
    """What the head of a file says: samples, Hz, and whether it holds 16-bit numbers."""

    length: int
    rate: int
    is_16_bit: bool


def audio_info(path: Path) -> AudioInfo:
    """The head of a file with one channel.

    Raises:
        UserError: it does not exist, is not audio, or has several channels.
        OSError: the system does not open it.
    """
    sf = soundfile()
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    with path.open("rb"):  # of a file that the system does not open, the library does not say why
        pass
    try:
        info = sf.info(str(path))
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable audio file: {error}") from error
    if info.channels != 1:
        raise UserError(f"{path} has {info.channels} channels; separation takes one: mix it down or choose a channel")
    return AudioInfo(info.frames, info.samplerate, info.subtype == "PCM_16")


def read_audio(path: Path, rate: int, resample: bool = False) -> Wave:
    """A recording of one channel at `rate` Hz, float32 (T,), full scale ±1.

    Raises:
        UserError: see `audio_info`; also if it has another rate and `resample` is off, or it is damaged or not finite.
    """
    info = audio_info(path)
    check_rate(path, info, rate, resample)
    sf = soundfile()
    try:
        wave: Wave = sf.read(str(path), dtype="float32")[0]
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable audio file: {error}") from error
    if len(wave) != info.length:
        raise UserError(f"{path} is damaged: {len(wave)} of {info.length} samples can be read")
    if not np.isfinite(wave).all():
        raise UserError(f"{path} holds values that are not finite")
    return wave if info.rate == rate else _resampled(wave, info.rate, rate)


def check_rate(path: Path, info: AudioInfo, rate: int, resample: bool) -> None:
    """Refuse another rate unless recordings are resampled.

    Raises:
        UserError: it has another rate.
    """
    if info.rate != rate and not resample:
        raise UserError(
            f"{path} has {info.rate} Hz, not data.sample_rate ({rate} Hz); convert it, or set data.resample to true"
        )


def _resampled(wave: Wave, old: int, new: int) -> Wave:
    from scipy.signal import resample_poly

    common = gcd(old, new)
    return np.asarray(resample_poly(wave.astype(np.float64), new // common, old // common), dtype=np.float32)


def is_clipped(wave: npt.NDArray[Any]) -> bool:
    """Whether some samples in a row are at full scale, float in ±1."""
    full = np.abs(wave) >= _FULL_SCALE
    starts = len(full) - _IN_A_ROW + 1
    return any(full[at : at + _IN_A_ROW].all() for at in np.flatnonzero(full) if at < starts)


def write_audio(path: Path, wave: npt.NDArray[Any], rate: int) -> None:
    """Write one channel as a 16-bit wav file; values beyond ±1 are cut off."""
    steps = np.clip(np.round(wave.astype(np.float64) * 2**15), -(2**15), 2**15 - 1)
    soundfile().write(str(path), steps.astype(np.int16), rate, subtype="PCM_16", format="WAV")
