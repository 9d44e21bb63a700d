"""The params file that stages of given objects leave for `ocd` commands."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.calls.stages import Stages, stdout_apart, write_params
from ocd_core.calls.task import DOMAIN
from ocd_core.errors import UserError
from ocd_core.params_files import read_yaml


class Written:
    """In place of `Params`: only its plain values are written."""

    def __init__(self, **values: Any) -> None:
        self.values = {"domain": DOMAIN, **values}

    def plain(self) -> dict[str, Any]:
        return self.values


def written(folder: Path, **values: Any) -> Path:
    params: Any = Written(**values)
    write_params(params, Artifacts("mine", root=folder))
    return folder / "params" / "mine.yaml"


def test_ones_own_params_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = written(tmp_path, data={"seed": 1})
    assert read_yaml(path) == {"domain": DOMAIN, "data": {"seed": 1}}
    whole = path.read_text()
    path.write_text(whole[:10])  # as an earlier version left it when it was killed
    (tmp_path / "linked").hardlink_to(path)
    assert written(tmp_path, data={"seed": 1}).read_text() == whole
    assert (tmp_path / "linked").read_text() == whole[:10]  # not in place
    assert read_yaml(written(tmp_path, data={"seed": 2}))["data"] == {"seed": 2}
    assert [file.name for file in path.parent.iterdir()] == ["mine.yaml"]


def test_those_of_another_task_stay(tmp_path: Path) -> None:
    path = tmp_path / "params" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("domain: images\n")
    params: Any = Written()
    for write in (lambda: written(tmp_path), lambda: Stages(Artifacts("mine", root=tmp_path), "cpu").run(params, ())):
        with pytest.raises(UserError, match=r"mine\.yaml is the params file of another task; give another out="):
            write()
    assert path.read_text() == "domain: images\n"


def test_what_stages_print_is_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_apart():
        print("trained")
    assert capsys.readouterr() == ("", "trained\n")
