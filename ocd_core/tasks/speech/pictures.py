"""Listening: some test mixtures with what each network separates, as wav files, spectrograms and a page with players.

Dims: N recordings, C sources, T samples.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ocd_core.drawing import new_figure, save_figure
from ocd_core.progress import progress_bar
from ocd_core.samples import Batch, only
from ocd_core.tasks.speech.audio import write_audio
from ocd_core.tasks.speech.quality import assigned, mixture_si_sdr, separation_si_sdr, si_sdr, sounding
from ocd_core.tasks.speech.spectrograms import pictures
from ocd_core.tasks.speech.task import SpeechSeparation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ocd_core.predictor import Predictor
    from ocd_core.store import OverfitStore

SHOWN = 3
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .5rem; text-align: left; font-size: .9rem; }
audio { width: 12rem; height: 2rem; display: block; } img { max-width: 100%; height: auto; }
"""


def draw(predictor: "Predictor", prepared: Path, bound: "OverfitStore", dest: Path) -> None:
    """Write wav files, `spectrograms_<row>.png` and `listening.html` (the domain's `Task.pictures`)."""
    task = predictor.task
    assert isinstance(task, SpeechSeparation)
    test = task.open(prepared, "test")
    rows = shown_rows(len(test))
    sections = []
    with progress_bar("listening", len(rows)) as progress:
        for done, row in enumerate(rows, 1):
            batch = test.batch(torch.tensor([row]))
            heard = separations(predictor, batch, bound)
            write_recordings(batch, heard, dest, row, task.data.sample_rate)
            save_figure(spectrogram_figure(batch, heard, task.data.sample_rate), dest / f"spectrograms_{row}.png")
            sections.append(_section(batch, heard, row))
            progress(done, f"test mixture {row}")
    (dest / "listening.html").write_text(_page(sections), encoding="utf-8")


def shown_rows(count: int) -> list[int]:
    """The rows of the test split that are shown: the middles of three equal parts; the same in all runs."""
    shown = min(SHOWN, count)
    return [(2 * i + 1) * count // (2 * shown) for i in range(shown)]


def separations(predictor: "Predictor", batch: Batch, bound: "OverfitStore") -> dict[str, Tensor]:
    """The sources, and what base, OCD (one draw, the table's) and bound make of one mixture, each float32 (C, T).

    Estimates are in the order of the sources, and at their level and sign, which SI-SDR leaves open.
    """
    base = predictor.base_pass(batch.to(predictor.device))
    delta_1OI = torch.from_numpy(bound.deltas_of_samples(batch.sample_id.numpy())).to(predictor.device)
    source_1CT = only(batch.target)
    outputs = {
        "base": base.output,
        "OCD": predictor.predict_pass(base, batch.sample_id, 1, "ensemble").output,
        "bound": predictor.answer(base, delta_1OI),
    }
    found = {"source": source_1CT[0]}
    for name, output in outputs.items():
        ordered = assigned(only(output).float().cpu(), source_1CT)[0]
        inner, energy = (ordered * source_1CT[0]).sum(-1, keepdim=True), ordered.square().sum(-1, keepdim=True)
        level = source_1CT[0].square().sum(-1, keepdim=True)
        found[name] = ordered * torch.where(inner < 0, -1, 1) * (level / energy.clamp(min=1e-12)).sqrt()
    return found


def write_recordings(batch: Batch, heard: Mapping[str, Tensor], dest: Path, row: int, rate: int) -> None:
    """The mixture and each voice as wav files."""
    write_audio(dest / _mixture_file(row), batch.inputs[0][0].numpy(), rate)
    for name, voices in heard.items():
        for source, wave in enumerate(voices.numpy()):
            write_audio(dest / _file(row, name, source), wave, rate)


def spectrogram_figure(batch: Batch, heard: Mapping[str, Tensor], rate: int) -> "Figure":
    """A column for each source, a row for each network, and the mixture above; 80 dB below the mixture's peak."""
    (mixture_1T,) = batch.inputs
    sources = len(heard["source"])
    seconds = mixture_1T.shape[1] / rate
    figure, axes = new_figure(1 + len(heard), sources, (2.4 * sources, 1.7 * (1 + len(heard))))
    drawn = {name: pictures(voices[None], mixture_1T)[0] for name, voices in heard.items()}
    extent = (0.0, seconds, 0.0, rate / 2000)
    shown = {"vmin": 0.0, "vmax": 1.0, "cmap": "magma", "origin": "lower", "aspect": "auto", "extent": extent}
    axes[0, 0].imshow(pictures(mixture_1T[:, None], mixture_1T)[0, 0].numpy(), **shown)
    axes[0, 0].set_title("mixture", fontsize=9)
    for axis in axes[0, 1:]:
        axis.set_axis_off()
    for line, (name, picture_CBW) in zip(axes[1:], drawn.items(), strict=True):
        scores = si_sdr(heard[name], heard["source"])
        for source, (axis, picture) in enumerate(zip(line, picture_CBW, strict=True)):
            axis.imshow(picture.numpy(), **shown)
            title = f"source {source + 1}" if name == "source" else f"{name}: {_decibels(heard, name, source, scores)}"
            axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
    axes[-1, 0].set_xlabel("seconds", fontsize=8)
    axes[-1, 0].set_ylabel("kHz", fontsize=8)
    return figure


def _decibels(heard: Mapping[str, Tensor], name: str, source: int, scores: Tensor) -> str:
    silent = not bool(sounding(heard["source"][None])[0, source])
    return "silent source" if silent else f"{float(scores[source]):.1f} dB"


def _section(batch: Batch, heard: Mapping[str, Tensor], row: int) -> str:
    """One mixture with its players."""
    target = only(batch.target)
    mixture = float(mixture_si_sdr(batch.inputs[0], target))
    head = "".join(f"<th>source {i + 1}</th>" for i in range(target.shape[1]))
    lines = []
    for name, voices in heard.items():
        scores = si_sdr(voices, heard["source"])
        cells = "".join(
            f"<td>{_player(_file(row, name, i))}{'' if name == 'source' else _decibels(heard, name, i, scores)}</td>"
            for i in range(len(voices))
        )
        gained = float(separation_si_sdr(voices[None], target)) - mixture
        mean = "" if name == "source" else f"<br>SI-SDRi {gained:.2f} dB"
        lines.append(f"<tr><th>{escape(name)}{mean}</th>{cells}</tr>")
    return (
        f"<h2>Test mixture {row}</h2>\n<p>The mixture ({mixture:.2f} dB):</p>{_player(_mixture_file(row))}\n"
        f"<table><tr><th></th>{head}</tr>\n{chr(10).join(lines)}</table>\n"
        f'<p><img src="spectrograms_{row}.png" alt="Spectrograms of test mixture {row}"></p>'
    )


def _page(sections: Sequence[str]) -> str:
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Separated voices</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Separated voices</h1>\n"
        "<p>SI-SDR of each voice, in the order, level and sign of its source. OCD is one draw; the bound was "
        f"overfitted on the mixture itself, with its sources.</p>\n{body}\n</body>\n</html>\n"
    )


def _player(file: str) -> str:
    return f'<audio controls preload="none" src="{escape(file)}"></audio>'


def _mixture_file(row: int) -> str:
    return f"test{row}_mixture.wav"


def _file(row: int, name: str, source: int) -> str:
    return f"test{row}_{name.lower()}_s{source + 1}.wav"
