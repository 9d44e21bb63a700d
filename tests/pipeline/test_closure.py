"""dvc.yaml against the code: each stage depends on exactly the files that it runs."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from ocd_core.config import load_params
from ocd_core.fingerprint import import_closure, pictures_code, task_code
from ocd_core.params_files import task_names
from tests.workspace import REPO

STAGES = ["task_code", "prepare", "train_base", "score_layers", "overfit", "train_diffusion", "train_scale",
          "train_controls", "evaluate", "illustrate", "report"]  # fmt: skip


def dvc_stages() -> dict[str, dict]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]


def test_every_stage_is_a_script_and_a_stage() -> None:
    scripts = {p.stem for p in (REPO / "stages").glob("[!_]*.py")}
    assert scripts == set(dvc_stages()) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_equal_the_import_closure(stage: str) -> None:
    listed = {d for d in dvc_stages()[stage]["deps"] if d.endswith(".py")}
    files = import_closure(f"stages.{stage}", {"stages", "ocd_core"}).values()
    assert listed == {str(f.relative_to(REPO)) for f in files}


def test_the_fingerprints_are_taken_again_when_any_file_in_them_changes() -> None:
    folders = [d for d in dvc_stages()["task_code"]["deps"] if (REPO / d).is_dir()]
    for name in task_names(REPO):
        params = load_params(name, REPO)
        for module in task_code(params) | pictures_code(params):
            file = find_spec(module).origin
            assert any(Path(file).is_relative_to(REPO / folder) for folder in folders), module


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_builds_the_task_depends_on_the_tasks_own_code(stage: str) -> None:
    text = (REPO / "stages" / f"{stage}.py").read_text()
    if "build_task(" in text or "Predictor.from_run" in text:
        assert "data/${item.task}/code.json" in dvc_stages()[stage]["deps"]


def test_no_test_store_is_an_ancestor_of_a_training_stage() -> None:
    """Follow each training stage's dependencies back through the stages that make them."""
    makers: dict[str, str] = {}
    inputs: dict[str, list[str]] = {}
    for name, stage in dvc_stages().items():
        for split in stage["matrix"].get("split", [""]):
            key = f"{name}-{split}"
            fill = lambda text, split=split: text.replace("${item.split}", split)  # noqa: E731
            outs = [o if isinstance(o, str) else next(iter(o)) for k in ("outs", "metrics", "plots")
                    for o in stage.get(k, [])]  # fmt: skip
            makers |= {fill(o): key for o in outs}
            inputs[key] = [fill(d) for d in stage["deps"]]

    def ancestors(key: str) -> set[str]:
        direct = {m for d in inputs[key] for out, m in makers.items() if out == d or out.startswith(d + "/")}
        return direct.union(*(ancestors(m) for m in direct))

    for stage in ("train_base", "score_layers", "train_diffusion", "train_scale", "train_controls"):
        found = ancestors(f"{stage}-")
        assert "prepare-" in found
        assert "overfit-test" not in found
        assert "evaluate-" not in found
    assert "overfit-test" in ancestors("evaluate-")


def test_every_params_group_that_a_stage_reads_is_tracked() -> None:
    """`params.<group>` in a stage's script is listed under the stage's params."""
    import re

    for stage in STAGES:
        text = (REPO / "stages" / f"{stage}.py").read_text()
        used = set(
            re.findall(r"params\.(base|layer|scoring|overfit|diffusion|scale|sampling|controls|evaluate)\b", text)
        )
        listed = {
            k.split(".")[0] for entry in dvc_stages()[stage].get("params", []) for ks in entry.values() for k in ks
        }
        assert used <= listed, stage


def test_params_files_exist_for_the_default_tasks() -> None:
    from ruamel.yaml import YAML

    defaults = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    assert defaults == {"tasks": ["mnist5k"], "seeds": [0], "layer_ranks": [1]}
    assert {"mnist5k", "mnist"} <= set(task_names(REPO))
    assert Path(REPO / "data" / "README.md").is_file()
