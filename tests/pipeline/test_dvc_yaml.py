"""dvc.yaml against ocd_core/pipeline.py, which stages check themselves by: one says what the other says."""

import re

import pytest
from ruamel.yaml import YAML

from ocd_core.pipeline import CONTENT, STAGES
from tests.support.repository import REPO

RUN = "data/${item.task}/seed${item.seed}"
FOLDERS = {
    "prepared": "data/${item.task}/prepared",
    "base": f"{RUN}/base",
    "layers": f"{RUN}/layers",
    "diagnosis": f"{RUN}/diagnosis",
    **{
        n: f"{RUN}/rank${{item.rank}}/{n}"
        for n in ("diffusion", "scale", "tuned", "controls", "evaluation", "pictures")
    },
    **{f"overfit/{s}": f"{RUN}/rank${{item.rank}}/overfit/{s}.zarr" for s in ("train", "val", "test")},
}


def dvc_stages() -> dict[str, dict]:
    return YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]


def outs_of(stage: dict) -> list[str]:
    return [o if isinstance(o, str) else next(iter(o)) for k in ("outs", "metrics", "plots") for o in stage.get(k, [])]


def test_every_stage_is_a_script_in_the_order_of_the_pipeline() -> None:
    scripts = {p.stem for p in (REPO / "stages").glob("[!_]*.py")}
    assert list(dvc_stages()) == ["code", *STAGES]
    assert scripts == {"code", *STAGES}


def test_no_source_file_stands_in_it_and_it_is_short() -> None:
    text = (REPO / "dvc.yaml").read_text()
    assert not re.search(r"- \S+\.py\s*$", text, re.MULTILINE)
    assert len(text.splitlines()) <= 360


def test_the_code_stage_always_runs_and_makes_a_file_for_each_stage() -> None:
    code = dvc_stages()["code"]
    assert code["always_changed"] is True
    assert code["outs"] == [f"data/${{item.task}}/code/{stage}.json" for stage in STAGES]


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "report"])
def test_deps_are_the_stages_code_and_the_content_of_its_inputs(stage: str) -> None:
    wanted = {f"data/${{item.task}}/code/{stage}.json"}
    for name in STAGES[stage].inputs:
        wanted |= {f"{FOLDERS[name]}/{file}" for file in CONTENT[name]} if name in CONTENT else {FOLDERS[name]}
    assert set(dvc_stages()[stage]["deps"]) == wanted


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "report"])
def test_params_are_those_of_the_stage(stage: str) -> None:
    (entry,) = dvc_stages()[stage]["params"]
    assert entry["params/${item.task}.yaml"] == list(STAGES[stage].params)


def test_every_manifest_is_kept_with_its_artifact() -> None:
    for name, stage in STAGES.items():
        if name in ("overfit", "report"):
            continue
        outs, folder = outs_of(dvc_stages()[name]), FOLDERS[stage.makes]
        assert folder in outs or f"{folder}/manifest.json" in outs, name


def test_every_params_group_that_a_stage_reads_is_tracked() -> None:
    """`params.<group>` in a stage's module is one of the stage's groups."""
    for stage in STAGES:
        text = (REPO / "ocd_core/running" / f"{stage}.py").read_text()
        groups = "base|layer|scoring|overfit|diffusion|scale|sampling|tuning|controls|evaluate"
        read = {key.split(".")[0] for key in STAGES[stage].params}
        assert set(re.findall(rf"params\.({groups})\b", text)) <= read, stage


def test_no_test_store_is_an_ancestor_of_a_training_stage() -> None:
    """Follow each training stage's dependencies back through the stages that make them."""
    makers: dict[str, str] = {}
    inputs: dict[str, list[str]] = {}
    for name, stage in dvc_stages().items():
        for split in stage["matrix"].get("split", [""]):
            key = f"{name}-{split}"
            fill = lambda text, split=split: text.replace("${item.split}", split)  # noqa: E731
            makers |= {fill(o): key for o in outs_of(stage)}
            inputs[key] = [fill(d) for d in stage.get("deps", [])]

    def ancestors(key: str) -> set[str]:
        direct = {
            m
            for d in inputs[key]
            for o, m in makers.items()
            if o == d or o.startswith(d + "/") or d.startswith(o + "/")
        }
        return direct.union(*(ancestors(m) for m in direct))

    for stage in ("train_base", "score_layers", "train_diffusion", "train_scale", "tune_diffusion", "train_controls"):
        found = ancestors(f"{stage}-")
        assert "prepare-" in found
        assert "overfit-test" not in found
        assert "evaluate-" not in found
    assert "overfit-test" in ancestors("evaluate-")


def test_defaults_run_tasks_that_come_with_the_repository() -> None:
    defaults = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    assert defaults == {"tasks": ["tinynerf_demo", "mnist5k"], "seeds": [0], "layer_ranks": [1]}
    for task in ("mnist5k", "mnist", "tinynerf", "tinynerf_demo"):
        assert (REPO / "params" / f"{task}.yaml").is_file()
    assert (REPO / "data" / "README.md").is_file()
