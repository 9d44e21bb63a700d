import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ocd_core.config import GROUPS_UP_TO, Params, load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.params_files import read_yaml
from tests.support.repository import REPO, files_in

# what these domains read from the prepared data for the network
SIZES_FROM_DATA = {"tabular": {"in_features": 8, "out_features": 1}, "text": {"features": 8, "classes": 2}}
FILES = [path.stem for path in files_in("params", ".yaml")]


def values(task: str = "mnist5k") -> dict[str, Any]:
    return copy.deepcopy(read_yaml(REPO / "params" / f"{task}.yaml"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The params of mnist5k with one key set (or removed, where value is ...)."""
    found = values()
    *groups, last = path.split(".")
    place = found
    for group in groups:
        place = place[group]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return found


def keys(tree: Any, at: str = "") -> set[str]:
    """Every leaf's path."""
    if not isinstance(tree, dict):
        return {at}
    return {at} if not tree else set().union(*(keys(v, f"{at}.{k}") for k, v in tree.items()))


def test_there_are_params_files() -> None:
    assert {"mnist", "mnist5k"} <= set(FILES)


@pytest.mark.parametrize("task", FILES)
def test_params_files_are_complete_and_nothing_is_dropped(task: str) -> None:
    """Every key of the config is in the file with the very value (and type) that the config holds."""
    path = REPO / "params" / f"{task}.yaml"
    raw = YAML(typ="safe", pure=True).load(path.read_text())
    params = load_params(task, REPO)
    dumped = params.model_dump(mode="json")
    dumped["data"] = params.data.model_dump(mode="json")
    assert keys(dumped) == keys(raw)
    assert dumped == raw


@pytest.mark.parametrize("task", FILES)
def test_params_files_say_what_they_cost_and_reach(task: str) -> None:
    text = (REPO / "params" / f"{task}.yaml").read_text()
    header = text[: text.index("domain:")]
    assert all(line.startswith("#") or not line for line in header.splitlines())
    for word in ("machine", "minutes", "expected", "paper"):
        assert word in header.lower()


@pytest.mark.parametrize("task", FILES)
def test_the_network_that_starts_cold_gets_at_least_the_effort_of_its_twin(task: str) -> None:
    """A control that is trained less than the method shows nothing."""
    controls = read_yaml(REPO / "params" / f"{task}.yaml")["controls"]
    cold = controls["hypernetwork"]
    twin = controls.get("hypernetwork_pretrained", {"updates": 1, "ema": 0.9, "lrs": [1e-4, 1e-3], "patience": 1})
    assert len(cold["lrs"]) >= len(twin["lrs"])
    for key in ("updates", "ema", "patience"):
        assert cold[key] >= twin[key], key


@pytest.mark.parametrize("task", FILES)
def test_params_files_build_their_task(task: str) -> None:
    params = load_params(task, REPO)
    assert params.build_task() is not None
    model, from_data = params.base.model, SIZES_FROM_DATA.get(params.domain, {})
    assert build_model(model.name, {**model.args, **from_data}) is not None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("overfit.stepz", 3, r"overfit\.stepz: unknown key"),
        ("base.model.size", 3, r"base\.model\.size: unknown key"),
        ("data.colour", True, r"data\.colour: unknown key"),
        ("extra", {}, r"extra: unknown key"),
        ("overfit.steps", ..., r"overfit\.steps: missing"),
        ("data.classes", ..., r"data\.classes: missing"),
        ("sampling", ..., r"sampling: missing"),
        ("data", ..., r"data: "),
        ("overfit.steps", "3", r"overfit\.steps: .*integer.*\(found '3'\)"),
        ("overfit.steps", 2.5, r"overfit\.steps: .*integer"),
        ("overfit.until_converged", 1, r"overfit\.until_converged: .*boolean"),
        ("data.height", "28", r"data\.height: .*integer.*\(found '28'\)"),
        ("base.model", "lenet5", r"base\.model: "),
        ("overfit.steps", 0, r"overfit\.steps: .*greater than or equal to 1.*\(found 0\)"),
        ("overfit.lr", 0.0, r"overfit\.lr: .*greater than 0"),
        ("overfit.lr", float("nan"), r"overfit\.lr: "),
        ("overfit.lr", float("inf"), r"overfit\.lr: "),
        ("base.weight_decay", -1.0, r"base\.weight_decay: .*greater than or equal to 0"),
        ("diffusion.ema", 1.0, r"diffusion\.ema: .*less than 1"),
        ("diffusion.denoiser.dropout", 1.5, r"diffusion\.denoiser\.dropout: "),
        ("sampling.eta", 2.0, r"sampling\.eta: .*less than or equal to 1"),
        ("scoring.draws", 5, r"scoring\.draws: .*greater than or equal to 10"),
        ("overfit.optimizer", "lbfgs", r"overfit\.optimizer: .*'sgd' or 'adam' \(found 'lbfgs'\)"),
        ("layer.candidates.kinds", [], r"layer\.candidates\.kinds: "),
        ("layer.candidates.kinds", ["lstm"], r"layer\.candidates\.kinds\.0: "),
        ("diffusion.prediction", "epsilon", r"diffusion: schedule zero_snr .*divides by zero"),
        ("diffusion.denoiser.name", "unet", r"diffusion: denoiser unet takes Δ as a matrix, but representation"),
        ("diffusion.embedding", 63, r"diffusion: embedding must be even .*not 63"),
        ("overfit.optimizer", "adam", r"overfit\.optimizer adam does not leave .*use sgd, or representation dense"),
        ("sampling.steps", 2000, r"sampling\.steps is 2000, but the diffusion has only 1000 timesteps"),
        ("data.test_size", None, r"data: .*give test_size"),
        ("domain", "sculpture", r"domain: unknown domain 'sculpture'; known are .*images"),
        ("domain", 3, r"domain: name the task's domain"),
        ("domain", "ocd_core.nothing:Task", r"domain: cannot import"),
        ("domain", "ocd_core.config:Params", r"domain: .*not a subclass"),
    ],
)
def test_mistakes_are_one_line_that_names_file_and_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match="^params/x.yaml: " + message) as error:
        parse_params(changed(path, value), "params/x.yaml")
    assert "\n" not in str(error.value)


def test_several_mistakes_are_named() -> None:
    found = changed("overfit.steps", 0)
    found["sampling"]["steps"] = 0
    with pytest.raises(UserError, match=r"overfit\.steps: .*; also sampling\.steps: "):
        parse_params(found, "x")


def test_a_misspelt_key_is_named_before_the_key_that_is_missing_for_it() -> None:
    found = changed("overfit.stepz", 3)
    del found["overfit"]["steps"]
    with pytest.raises(UserError, match=r"overfit\.stepz: unknown key; did you mean 'steps'\?$"):
        parse_params(found, "p.yaml")


def test_epsilon_is_possible_with_another_schedule() -> None:
    found = changed("diffusion.prediction", "epsilon")
    found["diffusion"]["schedule"] = "released"
    assert parse_params(found, "x").diffusion.prediction == "epsilon"


def test_files_that_are_not_there_or_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "real.yaml").write_text("a: [1\n")
    (tmp_path / "params" / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match=r"unknown task 'nope'.*tasks here: list, real"):
        load_params("nope", tmp_path)
    with pytest.raises(UserError, match=r"real\.yaml is not valid YAML") as error:
        load_params("real", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"list\.yaml: expected groups of params, found list"):
        load_params("list", tmp_path)


def test_params_cannot_change() -> None:
    params = load_params("mnist5k", REPO)
    with pytest.raises(Exception, match="frozen"):
        params.overfit.steps = 5


def test_effective_params_of_an_artifact(mnist5k_params: Params) -> None:
    raw = values()
    assert mnist5k_params.effective("base") == {k: raw[k] for k in ("domain", "data", "base")}
    for artifact, keys in GROUPS_UP_TO.items():
        effective = mnist5k_params.effective(artifact)
        assert list(effective) == [k.split(".")[0] for k in keys]
        assert {k: v for k, v in effective.items() if k in keys} == {k: raw[k] for k in keys if "." not in k}
    name = raw["diffusion"]["representation"]["name"]
    assert mnist5k_params.effective("scale")["diffusion"] == {"representation": {"name": name}}
    assert parse_params(mnist5k_params.effective("evaluation"), "stored") == mnist5k_params


@pytest.mark.parametrize(
    ("representation", "components", "message"),
    [
        ("factored", 40, "overfit.refine does not leave Δ = u ⊗ i_L"),
        ("pca", 41, "diffusion.representation.components is 41, but Δ has only 40 after overfit.refine"),
        ("pca", 40, None),
        ("dense", 80, None),
    ],
)
def test_refined_deltas_have_few_components(representation: str, components: int, message: str | None) -> None:
    found = changed("overfit.layout", "dense")
    found["overfit"]["refine"].update({"steps": 1, "components": 40})
    found["diffusion"]["representation"].update({"name": representation, "components": components})
    if message is None:
        parse_params(found, "x")
        return
    with pytest.raises(UserError, match=message):
        parse_params(found, "x")


def test_every_problem_is_named_and_a_misspelt_key_has_a_suggestion() -> None:
    wrong = values()
    wrong["overfit"]["stepps"] = wrong["overfit"].pop("steps")
    wrong["scale"]["width"] = "wide"
    with pytest.raises(UserError) as found:
        parse_params(wrong, "mine.yaml")
    text = str(found.value)
    assert text.startswith("mine.yaml: overfit.stepps: unknown key; did you mean 'steps'?; also scale.width: ")
    assert "overfit.steps" not in text  # it is there, misspelt
    wrong["scale"] |= {"updates": -1, "lr": 0, "patience": "x"}
    with pytest.raises(UserError, match=r"overfit\.stepps.*; also .*; also .*\(and 2 more\)"):
        parse_params(wrong, "mine.yaml")
