"""Small folders in LibriMix's layout, and the task on them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ocd_core.tasks.speech.params import SpeechData
from ocd_core.tasks.speech.task import SpeechSeparation

RATE = 8000
SOURCES = 2
NETWORK = {"sources": SOURCES, "features": 8, "hidden": 4, "pairs": 2, "kernel": 16, "chunk": 10, "frame": 8}
PARTS = {"train": 4, "dev": 3, "test": 3}
SPEAKERS = ("anna", "ben", "cleo", "dan")

Wave = npt.NDArray[np.float64]


def voices(part: str, number: int, length: int, sources: int = SOURCES) -> Wave:
    """Tones with noise, (C, T), on the steps of 16 bits."""
    rng = np.random.default_rng([len(part), number])
    time = np.arange(length) / RATE
    tones = [np.sin(2 * np.pi * (200 + 300 * i + 40 * rng.random()) * time + 6 * rng.random()) for i in range(sources)]
    waves = 0.15 * np.stack(tones) * rng.uniform(0.5, 1, (sources, 1)) + 0.02 * rng.normal(size=(sources, length))
    return np.round(waves * 2**15) / 2**15


def write_folder(
    root: Path,
    parts: Mapping[str, int] = PARTS,
    lengths: Sequence[int] = (1600,),
    sources: int = SOURCES,
    rate: int = RATE,
) -> Path:
    """Mixtures of every part, whose lengths take turns."""
    (root / "metadata").mkdir(parents=True)
    for part, count in parts.items():
        rows = []
        for number in range(count):
            first = number % len(SPEAKERS)
            speakers = [SPEAKERS[(first + i) % len(SPEAKERS)] for i in range(sources)]
            name = "_".join(f"{speaker}-{number}" for speaker in speakers)
            waves = voices(part, number, lengths[number % len(lengths)], sources)
            write_mixture(root, part, name, waves, rate)
            paths = {f"source_{i + 1}_path": f"/elsewhere/{part}/s{i + 1}/{name}.wav" for i in range(sources)}
            rows.append({"mixture_ID": name, "mixture_path": "/elsewhere", **paths, "length": waves.shape[1]})
        with (root / "metadata" / f"mixture_{part}_mix_clean.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


def write_mixture(root: Path, part: str, name: str, waves: Wave, rate: int = RATE) -> None:
    for folder, wave in {"mix_clean": waves.sum(0), **{f"s{i + 1}": w for i, w in enumerate(waves)}}.items():
        path = root / part / folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.round(wave * 2**15).astype(np.int16), rate, subtype="PCM_16")


def speech_data(path: Path, **changes: Any) -> SpeechData:
    values: dict[str, Any] = {
        "path": str(path),
        "train_part": "train",
        "val_part": "dev",
        "test_part": "test",
        "train_size": None,
        "val_size": None,
        "test_size": None,
        "sources": SOURCES,
        "sample_rate": RATE,
        "resample": False,
        "train_seconds": 0.15,
        "dynamic_mixing": False,
        "vgg11": None,
    }
    return SpeechData.model_validate({**values, **changes})


def task(path: Path, **changes: Any) -> SpeechSeparation:
    return SpeechSeparation(speech_data(path, **changes), "gated_lstm", NETWORK)
