import math

import pytest

from ocd_core.artifacts import Artifacts, read_json, replaced_folder, write_json, write_table
from ocd_core.errors import UserError


def test_paths_follow_the_documented_layout(tmp_path) -> None:
    run = Artifacts("mnist5k", 3, 2, tmp_path)
    assert run.prepared == tmp_path / "data/mnist5k/prepared"
    assert run.base == tmp_path / "data/mnist5k/seed3/base"
    assert run.overfit("val") == tmp_path / "data/mnist5k/seed3/rank2/overfit/val.zarr"
    assert Artifacts.from_folder(run.rank_dir) == run


@pytest.mark.parametrize("folder", ["data/mnist5k", "data/mnist5k/seed0", "data/mnist5k/seedx/rank1"])
def test_a_folder_that_is_not_a_run(tmp_path, folder) -> None:
    with pytest.raises(UserError, match="not a run's folder"):
        Artifacts.from_folder(tmp_path / folder)


@pytest.mark.parametrize(("seed", "rank"), [(-1, 1), (0, 0)])
def test_impossible_seed_or_rank(seed, rank) -> None:
    with pytest.raises(UserError, match="at least"):
        Artifacts("mnist5k", seed, rank)


def test_need_names_the_stage(tmp_path) -> None:
    run = Artifacts("mnist5k", root=tmp_path)
    with pytest.raises(UserError, match=r"stages\.train_base --task mnist5k"):
        run.need(run.base, "train_base")


def test_replaced_folder_is_complete_or_absent(tmp_path) -> None:
    dest = tmp_path / "a" / "base"
    with replaced_folder(dest) as work:
        (work / "x").write_text("1")
        assert not dest.exists()
    assert (dest / "x").read_text() == "1"
    with pytest.raises(ZeroDivisionError), replaced_folder(dest) as work:
        (work / "x").write_text(str(1 / 0))
    assert (dest / "x").read_text() == "1"
    assert [p.name for p in dest.parent.iterdir()] == ["base"]


def test_replaced_folder_sweeps_what_a_killed_run_left(tmp_path) -> None:
    (tmp_path / ".base.abc.partial").mkdir()
    with replaced_folder(tmp_path / "base") as work:
        (work / "x").write_text("1")
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": math.nan})
    assert read_json(path) == {"loss": 1.0}
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)


def test_table_leaves_missing_values_empty(tmp_path) -> None:
    write_table(tmp_path / "t.tsv", [{"a": 1, "b": 0.5}, {"a": 2, "c": math.nan}])
    assert (tmp_path / "t.tsv").read_text() == "a\tb\tc\n1\t0.5\t\n2\t\t\n"
