"""The module `ocd_core.running.runner`."""

import os
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.files import sha256_file
from ocd_core.params_files import read_yaml
from ocd_core.pipeline import STAGES
from ocd_core.provenance import Lineage, read_manifest, write_manifest
from ocd_core.running.runner import run_stage, run_stages, stage_states
from ocd_core.timing import read_seconds
from ocd_core.verify import verify
from tests.running.conftest import write_plane


@pytest.fixture
def copy(plane_run: Artifacts, tmp_path: Path) -> Artifacts:
    shutil.copytree(plane_run.root, tmp_path / "run")
    return Artifacts("plane", root=tmp_path / "run")


def states(root: Path) -> dict[str, tuple[str, str]]:
    return {found.name: (found.state, found.why) for found in stage_states(Lineage.of("plane", root=root))}


def test_nothing_runs_twice_and_times_are_kept(copy: Artifacts) -> None:
    assert set(states(copy.root).values()) == {("done", "")}
    assert run_stages(Lineage.of("plane", root=copy.root)) == []
    record = read_seconds(copy, "evaluate")
    assert record is not None
    assert set(record) >= {"seconds", "inference", "rows"}


def test_before_anything_ran_the_first_stage_is_missing_and_the_others_wait(tmp_path: Path) -> None:
    write_plane(tmp_path)
    found = states(tmp_path)
    assert found["prepare"] == ("missing", "it is missing")
    assert found["train_base"] == ("missing", "prepare comes first")
    assert list(found)[3:7] == ["diagnose", "overfit train", "overfit val", "overfit test"]


def test_a_changed_param_is_named_and_only_what_depends_on_it_runs(copy: Artifacts) -> None:
    path = copy.root / "params" / "plane.yaml"
    values = read_yaml(path)
    values["scale"]["updates"] = 3
    with path.open("w") as file:
        YAML().dump(values, file)
    found = states(copy.root)
    assert found["train_scale"] == ("stale", "scale.updates was 4 and is 3 now")
    assert found["train_diffusion"] == ("done", "")
    assert found["report"] == ("stale", "train_scale comes first")
    ran = run_stages(Lineage.of("plane", root=copy.root))
    assert ran == ["train_scale", "tune_diffusion", "train_controls", "evaluate", "illustrate", "report"]
    assert set(states(copy.root).values()) == {("done", "")}


def test_a_missing_split_is_made_alone_and_the_rest_stays(copy: Artifacts) -> None:
    shutil.rmtree(copy.overfit("val"))
    before = (copy.overfit("train") / "zarr.json").stat().st_mtime_ns
    assert states(copy.root)["overfit val"] == ("missing", "it is missing")
    assert run_stages(Lineage.of("plane", root=copy.root)) == ["overfit"]
    assert (copy.overfit("train") / "zarr.json").stat().st_mtime_ns == before


def test_a_damaged_artifact_is_stale(copy: Artifacts) -> None:
    (copy.base / "model.safetensors").write_bytes(b"no weights")
    state, why = states(copy.root)["train_base"]
    assert state == "stale"
    assert "damaged" in why


def test_times_of_files_do_not_matter(copy: Artifacts) -> None:
    """A clock may jump back, and DVC sets times when it takes an artifact from its cache."""
    for path in copy.evaluation.iterdir():
        os.utime(path, (4e9, 4e9))
    assert set(states(copy.root).values()) == {("done", "")}


def test_a_report_of_another_evaluation_is_stale(copy: Artifacts) -> None:
    made = read_manifest(copy.evaluation)
    (copy.evaluation / "more.txt").write_text("another result")
    for path in copy.evaluation.iterdir():
        os.utime(path, (0, 0))
    write_manifest(copy.evaluation, {k: v for k, v in made.items() if k != "files"},
                   {**made["files"], "more.txt": sha256_file(copy.evaluation / "more.txt")})  # fmt: skip
    assert states(copy.root)["report"] == ("stale", "it does not show the present evaluation")
    (problem,) = verify(str(copy.report))
    assert problem.what == f"{copy.report} was made from another {copy.evaluation} than the present one"
    assert run_stages(Lineage.of("plane", root=copy.root)) == ["report"]
    assert verify(str(copy.report)) == []


def test_a_damaged_report_is_made_again(copy: Artifacts) -> None:
    """Every file of it, as `ocd verify` names them."""
    for path in sorted(path for path in copy.report.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        assert verify(str(copy.report))
        assert states(copy.root)["report"][0] == "stale", path
        path.write_bytes(whole)
    (copy.report / "table.md").unlink()
    assert "table.md is missing" in states(copy.root)["report"][1]
    assert run_stages(Lineage.of("plane", root=copy.root)) == ["report"]
    assert verify(str(copy.report)) == []


def test_an_unknown_stage_is_refused(plane_run: Artifacts) -> None:
    with pytest.raises(UserError, match="unknown stage 'train'"):
        run_stage(Lineage.of("plane", root=plane_run.root), "train")
    assert set(STAGES) > {"train_base"}
