"""The whole-method presets as data, and the params files and overrides made of them."""

import math
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ocd_core.config import load_params
from ocd_core.diffusion.memory import training_memory
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets import apply_preset, override_arguments, preset_names, preset_values, write_preset
from ocd_core.scale.params import ScaleParams
from tests.support.repository import REPO
from tests.test_config import keys

PRESETS = ("paper", "released")
TASKS = ("mnist5k", "mnist", "tinynerf", "tinynerf_demo")
NOT_THE_METHOD = {".diffusion.representation.components"}  # of pca, which no preset uses
OVERFIT_METHOD = {f".overfit.{k}" for k in ("optimizer", "lr", "steps", "until_converged", "refine.steps")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the params of mnist5k alone."""
    (tmp_path / "params").mkdir()
    params_path("mnist5k", tmp_path).write_text(params_path("mnist5k", REPO).read_text())
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_every_task_and_changes_the_method_alone(preset: str, task: str) -> None:
    own = load_params(task, REPO)
    params, changes = apply_preset(preset, task, REPO)
    for group in ("domain", "data", "base", "layer", "scoring", "evaluate"):
        assert getattr(params, group) == getattr(own, group)
    for key in ("replicas", "layout", "memory_mb"):
        assert getattr(params.overfit, key) == getattr(own.overfit, key)
    dumped = {
        k: v
        for g in ("overfit", "diffusion", "scale", "sampling", "tuning", "controls")
        for k, v in flat(getattr(params, g).model_dump(mode="json"), f"{g}.").items()
    }
    before = {
        k: v
        for g in ("overfit", "diffusion", "scale", "sampling", "tuning", "controls")
        for k, v in flat(getattr(own, g).model_dump(mode="json"), f"{g}.").items()
    }
    assert {c.key: c.after for c in changes} == {k: v for k, v in dumped.items() if v != before[k]}
    assert {c.key: c.before for c in changes} == {k: before[k] for k, v in dumped.items() if v != before[k]}


@pytest.mark.parametrize("domain", ["images", "views"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_no_part_of_the_method_to_the_task(preset: str, domain: str) -> None:
    """Every key of the groups of the method is set, so that no choice of ours slips in."""
    params, _ = apply_preset(preset, "mnist5k", REPO)
    whole = {f".{g}": keys(getattr(params, g).model_dump(), f".{g}") for g in ("diffusion", "scale", "sampling")}
    wanted = set().union(*whole.values()) | OVERFIT_METHOD
    named = {f".{key}" for key in preset_values(preset, domain)}
    assert wanted - named == NOT_THE_METHOD
    assert named - wanted == {".controls.base_further.patience", ".tuning.updates"}


def test_what_the_paper_prints() -> None:
    params, _ = apply_preset("paper", "tinynerf", REPO)
    assert (params.overfit.optimizer, params.overfit.steps, params.overfit.lr) == ("sgd", 3, 30.0)
    assert apply_preset("paper", "mnist", REPO)[0].overfit.lr == 0.01
    d: DiffusionParams = params.diffusion
    assert (d.schedule, d.timesteps, d.prediction, d.loss, d.unit_variance) == ("paper", 10, "epsilon", "norm", False)
    assert (d.representation.name, d.denoiser.name, d.denoiser.width) == ("dense", "unet_paper", 128)
    assert (len(d.denoiser.multipliers), d.lr, d.clip) == (6, 1e-4, None)
    s: SamplingParams = params.sampling
    assert (s.sampler, s.steps, s.renormalise) == ("ancestral", 10, False)
    scale: ScaleParams = params.scale
    assert (scale.loss, scale.lr) == ("eq8", 1e-4)


@pytest.mark.parametrize(
    ("task", "lr", "steps", "width", "multipliers", "dropout"),
    [("mnist", 5e-4, 3, 128, [1, 1, 2, 2, 4, 4], 0.4), ("tinynerf", 5e-3, 10, 64, [1, 2, 2, 4], 0.2)],
)
def test_what_was_released(
    task: str, lr: float, steps: int, width: int, multipliers: list[int], dropout: float
) -> None:
    params, _ = apply_preset("released", task, REPO)
    assert (params.overfit.optimizer, params.overfit.lr, params.overfit.steps) == ("adam", lr, steps)
    d = params.diffusion
    assert (d.denoiser.name, d.denoiser.width, d.denoiser.multipliers) == ("unet_released", width, multipliers)
    assert (d.denoiser.depth, d.denoiser.dropout) == (2, dropout)
    assert (d.schedule, d.timesteps, d.prediction, d.loss, d.unit_variance) == (
        "released",
        1000,
        "epsilon",
        "mse",
        True,
    )
    assert (d.lr, d.ema, d.clip, d.batch_size, params.scale.lr) == (2e-4, 0.9999, 1.0, 8, 1e-3)
    assert (params.sampling.sampler, params.sampling.steps, params.sampling.renormalise) == ("ddim", 10, False)


@pytest.mark.parametrize(
    ("preset", "task", "shape"),
    [
        ("paper", "mnist", (84, 120)),
        ("paper", "mnist", (10, 84)),
        ("released", "mnist", (84, 120)),
        ("released", "mnist", (10, 84)),
        ("released", "tinynerf", (128, 63)),
    ],
)
def test_training_fits_into_24_gib(preset: str, task: str, shape: tuple[int, int]) -> None:
    """What `refuse_impossible` compares with the free memory."""
    need = training_memory(apply_preset(preset, task, REPO)[0].diffusion, shape)
    assert 2e9 < need.total < 24 * 2**30


@pytest.mark.parametrize("preset", PRESETS)
def test_the_file_is_a_complete_task_with_its_comments(preset: str, folder: Path) -> None:
    path = write_preset(preset, "mnist5k", folder)
    assert path == folder / "params" / f"mnist5k_{preset}.yaml"
    wanted, changes = apply_preset(preset, "mnist5k", folder)
    assert load_params(f"mnist5k_{preset}", folder) == wanted
    text, own = path.read_text(), params_path("mnist5k", folder).read_text()
    header, body = text[: text.index("domain:")], text[text.index("domain:") :]
    assert "5,000 real MNIST digits" not in header
    for change in changes:
        assert f"#   {change.key}: " in header
    for word in ("machine", "minutes", "expected", "paper"):
        assert word in header.lower()
    said = [line.split("#", 1)[1] for line in own[own.index("domain:") :].splitlines() if "#" in line]
    assert [line.split("#", 1)[1] for line in body.splitlines() if "#" in line] == said
    assert "  path: null  " in body
    assert max(map(len, text.splitlines())) <= 120


def test_a_file_is_overwritten_only_if_asked_for(folder: Path) -> None:
    path = write_preset("paper", "mnist5k", folder)
    path.write_text(path.read_text().replace("steps: 3 ", "steps: 4 "))
    edited = path.read_text()
    with pytest.raises(UserError, match=r"mnist5k_paper\.yaml already exists; give --force"):
        write_preset("paper", "mnist5k", folder)
    assert path.read_text() == edited
    write_preset("paper", "mnist5k", folder, force=True)
    assert load_params("mnist5k_paper", folder) == apply_preset("paper", "mnist5k", folder)[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_dvc_makes_the_same_params_of_the_overrides(preset: str, folder: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    wanted, changes = apply_preset(preset, "mnist5k", folder)
    arguments = override_arguments("mnist5k", changes)
    prefix = "-S params/mnist5k.yaml:"
    assert all(a.startswith(prefix) and len(a.split()) == 2 for a in arguments)
    apply_overrides(params_path("mnist5k", folder), [a.removeprefix(prefix) for a in arguments])
    assert load_params("mnist5k", folder) == wanted
    assert apply_preset(preset, "mnist5k", folder)[1] == []


def test_what_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(preset_names()) == PRESETS
    with pytest.raises(UserError, match=r"unknown preset 'ours'; known are paper, released"):
        apply_preset("ours", "mnist5k", folder)
    with pytest.raises(UserError, match="unknown task 'none'"):
        apply_preset("paper", "none", folder)
    with pytest.raises(UserError, match="preset released is for the domains images, views; this task's domain is x:Y"):
        preset_values("released", "x:Y")
    assert preset_values("paper", "x:Y") == preset_values("paper", "images")
    import ocd_core.presets as presets

    (folder / "mine.yaml").write_text(
        "about: x\nevery_task: {diffusion: {los: norm}}\ndomains: {}\nother_domains: true\n"
    )
    monkeypatch.setattr(presets, "_FOLDER", folder)
    with pytest.raises(UserError, match=r"mnist5k\.yaml with preset mine: diffusion\.los: unknown key"):
        write_preset("mine", "mnist5k", folder)
    assert not params_path("mnist5k_mine", folder).exists()


def test_the_schedules_leave_the_signal_that_the_table_says() -> None:
    """ᾱ_T by a plain product over the presets' own T."""
    from ocd_core.diffusion.schedules import make_schedule

    for preset, low, high, expected in (("paper", 1e-4, 1e-2, 0.951), ("released", 1e-6, 1e-2, 0.0066)):
        d = apply_preset(preset, "mnist5k", REPO)[0].diffusion
        last = d.timesteps - 1
        by_hand = math.prod(1 - (low * (d.timesteps - t) + high * (t - 1)) / last for t in range(1, d.timesteps + 1))
        assert by_hand == pytest.approx(expected, rel=0.01)
        assert float(make_schedule(d.schedule, d.timesteps).alphas_bar[-1]) == pytest.approx(by_hand, rel=1e-9)


def flat(tree: dict, at: str) -> dict:
    """{key with dots: value}."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def test_the_presets_are_yaml_1_2() -> None:
    values = read_yaml(REPO / "ocd_core" / "presets" / "paper.yaml")
    assert values["every_task"]["diffusion"]["lr"] == 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_a_task_may_lack_a_row_that_a_preset_sets(preset: str, folder: Path) -> None:
    path = params_path("mnist5k", folder)
    values = read_yaml(path)
    del values["controls"]["base_further"]
    values["controls"]["fit"].remove("base_further")
    values["evaluate"]["rows"].remove("base_further")
    with path.open("w") as file:
        YAML().dump(values, file)
    params, changes = apply_preset(preset, "mnist5k", folder)
    assert params.controls.of_row("base_further") is None
    assert not any("base_further" in change.key for change in changes)
    assert write_preset(preset, "mnist5k", folder).is_file()
