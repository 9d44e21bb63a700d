"""The page for listening: its files, and what it says, in a tiny run's report."""

import re

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.predictor import Predictor
from ocd_core.samples import only
from ocd_core.store import OverfitStore
from ocd_core.tasks.speech.audio import read_audio
from ocd_core.tasks.speech.pictures import separations, shown_rows, spectrogram_figure
from ocd_core.tasks.speech.quality import separation_si_sdr
from tests.tasks.speech.recordings import RATE, SOURCES

NAMES = ("source", "base", "ocd", "bound")


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (120, [20, 60, 100])])
def test_shown_mixtures_are_the_middles_of_equal_parts(count: int, rows: list[int]) -> None:
    assert shown_rows(count) == rows


def test_voices_are_those_of_the_rows_in_the_order_and_level_of_the_sources(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, load_params("speech", run.root))
    batch = predictor.task.open(run.prepared, "test").batch(torch.tensor([1]))
    found = separations(predictor, batch, OverfitStore(run.overfit("test")))
    source = only(batch.target)
    torch.testing.assert_close(found["source"], source[0])
    with torch.no_grad():
        plain = predictor.model.network(*batch.inputs)
    drawn = predictor.predict(batch.inputs, sample_id=batch.sample_id).output
    for name, output in (("base", plain), ("OCD", only(drawn))):
        best, kept = separation_si_sdr(output, source), separation_si_sdr(found[name][None], source)
        torch.testing.assert_close(kept, best, atol=1e-3, rtol=0)
        in_place = torch.nn.functional.cosine_similarity(found[name], source[0], dim=-1)
        assert (in_place > 0).all()
        torch.testing.assert_close(found[name].norm(dim=-1), source[0].norm(dim=-1))
    assert float(separation_si_sdr(found["bound"][None], source)) > float(separation_si_sdr(plain, source))


def test_spectrograms_have_a_row_for_each_network(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, load_params("speech", run.root))
    batch = predictor.task.open(run.prepared, "test").batch(torch.tensor([0]))
    found = separations(predictor, batch, OverfitStore(run.overfit("test")))
    figure = spectrogram_figure(batch, found, RATE)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["mixture", "", "source 1", "source 2"]
    assert [title.split(":")[0] for title in titles[4:]] == ["base", "base", "OCD", "OCD", "bound", "bound"]
    assert all(title.endswith(" dB") for title in titles[4:])


def test_report_has_players_for_every_voice(run: Artifacts) -> None:
    page = (run.report / "listening.html").read_text(encoding="utf-8")
    players = re.findall(r'<audio controls preload="none" src="([^"]+)">', page)
    expected = [
        name
        for row in range(3)
        for name in (f"test{row}_mixture.wav", *(f"test{row}_{n}_s{i + 1}.wav" for n in NAMES for i in range(SOURCES)))
    ]
    assert players == expected
    for name in players:
        wave = read_audio(run.report / name, RATE)
        assert np.abs(wave).max() > 0.01
    assert re.findall(r'<img src="([^"]+)"', page) == [f"spectrograms_{row}.png" for row in range(3)]
    assert all((run.report / f"spectrograms_{row}.png").stat().st_size > 1000 for row in range(3))
    assert len(re.findall(r"SI-SDRi -?\d+\.\d\d dB", page)) == 9
