"""The domain as a whole: the protocol, its loss and metrics, whole recordings, ensembles, files for `ocd predict`."""

import copy
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ocd_core.artifacts import Artifacts
from ocd_core.cli import app
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.models.parts.vgg import VGG11Features
from ocd_core.network.cut import CutModel
from ocd_core.network.loading import load_cut_model
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor
from ocd_core.report.run_export import export_run
from ocd_core.samples import Batch, only
from ocd_core.store import OverfitStore
from ocd_core.tasks.speech.audio import read_audio
from ocd_core.tasks.speech.quality import mixture_si_sdr, separation_si_sdr, si_sdr
from ocd_core.tasks.speech.spectrograms import pictures
from ocd_core.tasks.speech.task import SpeechSeparation
from ocd_core.testing import check_task
from tests.support.speech import LAST
from tests.tasks.speech.recordings import RATE, SOURCES, task, voices, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mixtures")


@pytest.mark.parametrize("mixing", [False, True], ids=["parts", "dynamic mixing"])
def test_the_protocol(folder: Path, tmp_path: Path, mixing: bool) -> None:
    example = next((folder / "test" / "mix_clean").glob("anna-0*.wav"))
    check_task(task(folder, dynamic_mixing=mixing), tmp_path / "check", layers=[LAST], example=example)


def test_dynamic_mixing_is_an_augmentation(folder: Path, tmp_path: Path) -> None:
    plain = task(folder)
    plain.prepare(tmp_path)
    split, rows = plain.open(tmp_path, "train"), torch.arange(2)
    mixed = plain.augmented("dynamic_mixing")
    assert mixed is not None
    wanted = task(folder, dynamic_mixing=True).training_batch(split, rows, 0, 1)
    assert torch.equal(mixed.training_batch(split, rows, 0, 1).target, wanted.target)
    assert not torch.equal(plain.training_batch(split, rows, 0, 1).target, wanted.target)
    assert plain.augmented("crop_flip") is None


# --- loss and metrics


def outputs(stages: int | None = None) -> torch.Tensor:
    shape = (3, SOURCES, 200) if stages is None else (3, stages, SOURCES, 200)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def targets() -> torch.Tensor:
    return torch.randn(3, SOURCES, 200, generator=torch.Generator().manual_seed(3))


def test_loss_is_minus_the_separation(folder: Path) -> None:
    torch.testing.assert_close(
        task(folder).loss(outputs(), targets()), -separation_si_sdr(outputs(), targets().double())
    )


def test_training_weighs_later_stages_more(folder: Path) -> None:
    """Weights 1, 2, 3 over their sum, as in the authors' code up to a factor."""
    domain, staged = task(folder), outputs(3)
    each = [domain.loss(staged[:, r], targets()) for r in range(3)]
    torch.testing.assert_close(domain.training_loss(staged, targets(), 0.0), (each[0] + 2 * each[1] + 3 * each[2]) / 6)
    torch.testing.assert_close(domain.training_loss(outputs(), targets(), 0.0), domain.loss(outputs(), targets()))
    with pytest.raises(UserError, match="no labels to smooth"):
        domain.training_loss(staged, targets(), 0.1)


def test_improvement_is_over_the_mixture(folder: Path) -> None:
    target = targets()
    batch = Batch((target.sum(1),), target, torch.arange(3))
    improvement, plain = task(folder).metrics
    found = improvement.measure(outputs(), batch)
    wanted = [
        max(float(si_sdr(outputs()[n, list(order)], target[n].double()).mean()) for order in ((0, 1), (1, 0)))
        - float(si_sdr(target[n].double().sum(0).expand(SOURCES, -1), target[n].double()).mean())
        for n in range(3)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    torch.testing.assert_close(
        plain.measure(outputs(), batch) - mixture_si_sdr(target.sum(1), target), found, atol=1e-5, rtol=0
    )
    assert float(improvement.measure(target.sum(1, keepdim=True).expand(-1, SOURCES, -1), batch).abs().max()) < 1e-4


# --- I(x)


def test_condition_is_the_output_s_spectrograms_and_the_layer_over_time(folder: Path) -> None:
    torch.manual_seed(0)
    domain = task(folder)
    model = CutModel(domain.build_model(), LAST)
    mixture = torch.from_numpy(np.stack([voices("x", n, 3000).sum(0) for n in range(2)])).float()
    batch = Batch((mixture,), torch.zeros(2, SOURCES, 3000), torch.arange(2))
    cut = model.prefix(batch.inputs)
    activation, output = (value.float() for value in model.forward(cut))
    found = domain.condition(batch, cut.layer_input, activation, output)
    assert cut.layer_input.shape[-1] == 16
    flat = cut.x_NPI
    torch.testing.assert_close(found.layer_input[:, :16], flat.mean(1))
    torch.testing.assert_close(found.layer_input[:, 16:], flat.std(1, correction=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.layer_activation[:, :8], activation.flatten(1, 2).mean(1), atol=1e-6, rtol=1e-4)
    channels = [
        torch.nn.functional.adaptive_avg_pool2d(pictures(output, mixture)[:, c], (16, 8)) for c in range(SOURCES)
    ]
    torch.testing.assert_close(found.base_output, torch.cat([c.flatten(1) for c in channels], 1))


@pytest.mark.parametrize("layer", ["separator.rnn_model.output.1", LAST, "encoder.conv"])
def test_condition_keeps_the_features_of_every_kind_of_layer(folder: Path, layer: str) -> None:
    """A convolution's are not at the end; the layer's own input and output, seen by hooks, are the reference."""
    torch.manual_seed(0)
    domain = task(folder)
    network = domain.build_model().eval()
    convolution = layer != LAST
    seen: list[torch.Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda _m, args, out: seen.extend([args[0], out]))
    widths = set()
    for length in (3000, 4000):
        mixture = torch.from_numpy(voices("x", 0, length).sum(0)).float()[None]
        batch = Batch((mixture,), torch.zeros(1, SOURCES, length), torch.arange(1))
        found = base_pass(domain, CutModel(domain_copy(network), layer), batch).condition
        seen.clear()
        with torch.no_grad():
            network(mixture)
        values = [x[0].flatten(1).T if convolution else x[0].flatten(0, -2) for x in seen]
        for part, value in zip((found.layer_input, found.layer_activation), values, strict=True):
            if layer == "encoder.conv" and value is values[1]:
                value = torch.relu(value)
            expected = torch.cat([value.mean(0), value.std(0, correction=0)])
            torch.testing.assert_close(part[0], expected, atol=1e-5, rtol=1e-3)
        widths.add((found.layer_input.shape, found.layer_activation.shape))
    assert len(widths) == 1


def domain_copy(network: torch.nn.Module) -> torch.nn.Module:
    """Without hooks."""
    found = copy.deepcopy(network)
    for module in found.modules():
        module._forward_hooks.clear()
    return found


def test_remarks_name_the_encoder_and_what_is_unusual(folder: Path, tmp_path: Path) -> None:
    path = next((folder / "train" / "s2").glob("anna-0*.wav"))
    soundfile.write(path, np.zeros(1600), RATE)
    domain = task(folder, dynamic_mixing=True, train_seconds=0.21)
    assert domain.prepare(tmp_path)["silent_sources"] == 1
    domain.bind(tmp_path)
    found = " ".join(domain.remarks())
    assert "averages on a 16x8 grid (no VGG11 weights)" in found
    assert "trained with dynamic mixing" in found
    assert "1 silent sources, whose SI-SDR is not defined, are left out of every mean" in found
    assert "10 recordings are shorter than data.train_seconds" in found
    assert "clipped" not in found


def test_what_travels_is_enough_elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mixtures, the prepared data and the weights' own place gone."""
    torch.manual_seed(0)
    weights = tmp_path / "own.safetensors"
    save_file(VGG11Features().state_dict(), weights)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    domain = task(folder, vgg11="~/own.safetensors")
    domain.prepare(prepared)
    domain.bind(prepared)
    mixture = torch.from_numpy(voices("x", 0, 2000).sum(0)).float()[None]
    batch = Batch((mixture,), torch.zeros(1, SOURCES, 2000), torch.arange(1))
    layer, output = torch.zeros(1, 5, 3), mixture[:, None].expand(-1, SOURCES, -1)
    wanted = domain.condition(batch, layer, layer, output).base_output
    assert wanted.shape == (1, SOURCES * 2048)
    elsewhere = tmp_path / "elsewhere"
    for name, source in domain.travelling(prepared).items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, elsewhere / name)
    shutil.rmtree(prepared)
    shutil.rmtree(folder)
    weights.unlink()
    there = task(folder, vgg11=str(weights))
    there.bind(elsewhere)
    assert torch.equal(there.condition(batch, layer, layer, output).base_output, wanted)
    assert there.remarks() == domain.remarks()
    assert set(task(folder).travelling(elsewhere)) == {"about.json"}


def test_an_exported_run_separates_as_the_run_does(run: Artifacts, tmp_path: Path) -> None:
    export_run(run.rank_dir, str(tmp_path / "bundle"))
    own, found = Predictor.from_artifacts(run.rank_dir), Predictor.from_pretrained(tmp_path / "bundle")
    inputs = (torch.from_numpy(voices("new", 0, 2222).sum(0)).float()[None],)
    assert torch.equal(only(found.predict(inputs, 2).output), only(own.predict(inputs, 2).output))


def test_training_on_whole_recordings_needs_equal_lengths(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mixtures", lengths=(1600, 1700))
    with pytest.raises(UserError, match=r"differ in length; set data\.train_seconds"):
        task(folder, train_seconds=None).prepare(tmp_path / "prepared")


def test_training_parts_are_as_long_as_asked(folder: Path, tmp_path: Path) -> None:
    for seconds, length in ((0.1, 800), (None, 1600)):
        dest = tmp_path / str(seconds)
        dest.mkdir()
        domain = task(folder, train_seconds=seconds)
        domain.prepare(dest)
        batch = domain.training_batch(domain.open(dest, "train"), torch.arange(2), 0, 1)
        assert batch.inputs[0].shape == (2, length)


# --- whole recordings of different lengths, in a run


def test_every_recording_is_stored_and_measured_alone(run: Artifacts) -> None:
    """As if it were the only one: its Δ, losses and metrics do not depend on the recordings beside it."""
    params = load_params("speech", run.root)
    domain = params.build_task(run.prepared)
    model = load_cut_model(run, domain, "cpu", params.evaluate.precision)
    split = domain.open(run.prepared, "test")
    assert split.lengths == [1600, 1750, 1600]
    store = OverfitStore(run.overfit("test"))
    with (run.evaluation / "samples.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for n in range(3):
        batch = split.batch(torch.tensor([n]))
        target = only(batch.target)
        assert target.shape[2] == split.lengths[n]
        with torch.no_grad():
            output = model.network(*batch.inputs)
        loss = float(domain.loss(output, target))
        assert float(store.read("loss_before")[n]) == pytest.approx(loss, rel=1e-3, abs=1e-3)
        gained = float(domain.metrics[0].measure(output, batch))
        assert float(rows[n]["base_si_sdri"]) == pytest.approx(gained, rel=1e-3, abs=1e-3)
        expected = overfitted(model.replay_network, batch, domain, params.overfit.lr, params.overfit.steps)
        largest = float(expected.abs().max())
        np.testing.assert_allclose(store.read("delta")[n], expected, rtol=2e-2, atol=2e-3 * largest)


def overfitted(network: torch.nn.Module, batch: Batch, domain: SpeechSeparation, lr: float, steps: int) -> torch.Tensor:
    """Δ of the layer for one recording, by a plain loop over the whole network."""
    network = copy.deepcopy(network)
    weight = network.get_submodule(LAST).weight.requires_grad_()
    start, optimizer = weight.detach().clone(), torch.optim.SGD([weight], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        domain.loss(network(batch.inputs[0].to(weight.dtype)), batch.target).sum().backward()
        optimizer.step()
    return weight.detach() - start


# --- ocd predict


def test_predict_writes_a_file_for_each_voice(run: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.root)
    mix = voices("new", 0, 2222).sum(0)
    soundfile.write(tmp_path / "talk.wav", mix, RATE, subtype="FLOAT")
    found = CliRunner().invoke(app, ["predict", "speech", str(tmp_path / "talk.wav"), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    line = json.loads(found.stdout.splitlines()[-1])
    files = [tmp_path / f"talk_s{i + 1}.wav" for i in range(SOURCES)]
    assert line["files"] == [str(file) for file in files]
    assert sum(line["ocd"].values()) == pytest.approx(100, abs=0.2)
    predictor = Predictor.from_artifacts(run.rank_dir)
    output = only(predictor.predict(predictor.task.read_input(tmp_path / "talk.wav"), 5).output)[0]
    for file, wave in zip(files, output, strict=True):
        written = read_audio(file, RATE)
        assert len(written) == 2222
        assert np.abs(written).max() == pytest.approx(0.9, abs=1e-4)
        assert float(si_sdr(torch.from_numpy(written), wave.float())) > 50


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.zeros(2000), RATE, "is silent; there is nothing to separate"),
        (voices("x", 0, 1000)[0], RATE, "has 1000 samples; at least 1024 are needed"),
        (voices("x", 0, 2000)[0], 16_000, r"has 16000 Hz, not data\.sample_rate"),
        (voices("x", 0, 2000).T, RATE, "has 2 channels"),
    ],
)
def test_recordings_that_cannot_be_separated(folder: Path, tmp_path: Path, wave, rate: int, message: str) -> None:
    soundfile.write(tmp_path / "a.wav", wave, rate)
    with pytest.raises(UserError, match=message):
        task(folder).read_input(tmp_path / "a.wav")


def test_level_of_a_silent_source_is_stored_as_a_number(folder: Path) -> None:
    target = torch.full((1, 2, 100), 0.1)
    target[0, 1] = 0
    found = task(folder).stored_target(Batch((target.sum(1),), target, torch.zeros(1, dtype=torch.int64)))
    torch.testing.assert_close(found, torch.tensor([[-20.0, -120.0]]), atol=1e-4, rtol=0)
