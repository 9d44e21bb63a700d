"""Which stages an edit reaches: in a copy of the source tree, files are changed and the hashes taken again."""

import ast
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.params_files import read_params
from ocd_core.pipeline import STAGES
from ocd_core.stage_code import BY_NAME, code_of, stage_code
from ocd_core.tasks import task_class
from tests.support.repository import REPO

PROGRAM = """
import json, sys
from ocd_core.params_files import read_params
from ocd_core.pipeline import STAGES
from ocd_core.stage_code import stage_digest
values = read_params(sys.argv[1])
print(json.dumps({stage: stage_digest(stage, values) for stage in STAGES}))
print(json.dumps(sorted({"torch", "pydantic", "numpy"} & set(sys.modules))))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("ocd_core", "stages", "params"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


_BEFORE: dict[str, dict[str, str]] = {}


def digests(tree: Path, task: str) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, task], cwd=tree, capture_output=True, text=True, check=True)
    first, heavy = done.stdout.splitlines()
    assert json.loads(heavy) == []  # nothing of the task is imported
    return json.loads(first)


def reached(tree: Path, task: str, file: str, text: str = "\n# another word\n") -> set[str]:
    """The stages of a task whose code changes with text at the end of a file (which may be a new one)."""
    path = tree / file
    if task not in _BEFORE:
        _BEFORE[task] = digests(tree, task)
    old = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((old or "") + text)
    try:
        after = digests(tree, task)
    finally:
        path.write_text(old) if old is not None else path.unlink()
    return {stage for stage in STAGES if _BEFORE[task][stage] != after[stage]}


@pytest.mark.parametrize("file", ["store_card", "store_page", "run_plots", "run_tables", "markdown"])
def test_what_people_read_changes_the_report_alone(tree: Path, file: str) -> None:
    assert reached(tree, "mnist5k", f"ocd_core/report/{file}.py") == {"report"}


def test_a_domains_figures_are_drawn_again_and_nothing_else(tree: Path) -> None:
    assert reached(tree, "tinynerf_demo", "ocd_core/tasks/views/pictures.py") == {"illustrate"}
    assert reached(tree, "mnist5k", "ocd_core/tasks/views/pictures.py") == set()


def test_a_new_param_of_sampling_reaches_what_draws(tree: Path) -> None:
    found = reached(tree, "mnist5k", "ocd_core/diffusion/sampling_params.py", "\n    order: int = 2\n")
    assert found == {"tune_diffusion", "train_controls", "evaluate", "illustrate", "report"}


def test_a_row_reaches_the_stages_that_fit_or_evaluate_it(tree: Path) -> None:
    rows = "ocd_core/evaluation/rows"
    assert reached(tree, "mnist5k", f"{rows}/neighbour.py") == {"evaluate"}
    # the report explains rows in their own words
    assert reached(tree, "mnist5k", f"{rows}/ridge.py") == {"train_controls", "evaluate", "illustrate", "report"}
    assert reached(tree, "mnist5k", f"{rows}/another.py", "ROW = None\n") == set()


def test_a_domain_a_network_or_a_sampler_reaches_the_tasks_that_use_it(tree: Path) -> None:
    assert reached(tree, "mnist5k", "ocd_core/tasks/another/task.py", "TASK = None\n") == set()
    assert reached(tree, "mnist5k", "ocd_core/tasks/views/task.py") == set()
    assert reached(tree, "mnist5k", "ocd_core/models/tinynerf.py") == set()
    assert "overfit" in reached(tree, "mnist5k", "ocd_core/models/lenet5.py")
    assert reached(tree, "mnist5k", "ocd_core/diffusion/samplers/dpm.py") == set()
    assert "evaluate" in reached(tree, "mnist5k", "ocd_core/diffusion/samplers/ddim.py")
    assert "train_base" not in reached(tree, "mnist5k", "ocd_core/diffusion/samplers/ddim.py")


def test_a_store_that_reads_other_than_before_overfits_again(tree: Path) -> None:
    found = reached(tree, "mnist5k", "ocd_core/overfit/steps.py")
    assert "overfit" in found
    assert not {"prepare", "train_base", "train_diffusion", "train_scale"} & found  # the probes of layers overfit too


def test_a_users_module_belongs_to_the_stages_of_its_task(tree: Path) -> None:
    text = (tree / "params/mnist5k.yaml").read_text()
    (tree / "params/mine.yaml").write_text(text.replace("domain: images", "domain: mine:Mine"))
    (tree / "mine.py").write_text("import mine_too\nclass Mine:\n    pictures = 'mine_figures:draw'\n")
    (tree / "mine_too.py").write_text("")
    (tree / "mine_figures.py").write_text("")
    assert reached(tree, "mine", "mine_too.py") == set(STAGES)
    assert reached(tree, "mine", "mine_figures.py") == {"illustrate"}
    assert reached(tree, "mnist5k", "mine.py") == set()


def test_what_is_not_to_be_found_is_named() -> None:
    values = {**read_params("mnist5k", REPO), "domain": "nowhere_at_all:Task"}
    with pytest.raises(UserError, match="cannot find the source of module 'nowhere_at_all'"):
        stage_code("prepare", values)


def test_members_count_wherever_their_package_is_reached() -> None:
    values = read_params("mnist5k", REPO)
    assert "ocd_core.diffusion.samplers.ddim" in code_of("ocd_core.predictor", values)
    assert "ocd_core.diffusion.samplers.dpm" not in code_of("ocd_core.predictor", values)


def test_every_package_whose_members_are_found_by_name_is_known() -> None:
    found = {"ocd_core.tasks"}
    for path in (REPO / "ocd_core").rglob("__init__.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        if any(isinstance(c.func, ast.Name) and c.func.id == "Registry" for c in calls):
            found.add(".".join(path.parent.relative_to(REPO).parts))
    assert found == set(BY_NAME)


def test_the_scale_network_follows_the_representation_and_nothing_else_of_the_diffusion() -> None:
    code = stage_code("train_scale", read_params("mnist5k", REPO))
    assert {"ocd_core.codes.params", "ocd_core.codes.representations.factored"} <= set(code)
    assert "ocd_core.codes.representations.pca" not in code
    assert not [name for name in code if name.startswith("ocd_core.diffusion")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected groups of params, found NoneType"),
        ("- a", "expected groups of params, found list"),
        ("domain: 3", "domain: expected a name, found 3"),
        ("domain: images\nevaluate: {rows: 5}", "evaluate.rows: expected a name, found 5"),
    ],
)
def test_the_first_stage_of_all_names_malformed_params(tmp_path: Path, monkeypatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params").mkdir()
    Path("params/mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        import_module("stages.code").main("mine")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"import torch\n\ndef f(:\n", r"mine_broken\.py, line 3: .*correct this file"),
        (b"x = '\xe9'\n", r"mine_broken\.py"),
        (b"x = 1\x00\n", r"mine_broken\.py"),
    ],
)
def test_a_users_module_that_is_no_python_is_named(tmp_path: Path, monkeypatch, source: bytes, message: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_broken.py").write_bytes(source)
    with pytest.raises(UserError, match=message):
        stage_code("prepare", {**read_params("mnist5k", REPO), "domain": "mine_broken:Task"})
    with pytest.raises(UserError, match=r"cannot import domain"):
        task_class("mine_broken:Task")
