"""How a domain's own pictures are found, and that domains without any have none."""

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.fingerprint import pictures_code, task_code
from ocd_core.tasks import task_class
from ocd_core.tasks.pictures import drawing_function
from ocd_core.tasks.views.pictures import draw
from stages import illustrate
from tests.toy import write_toy_params
from tests.workspace import REPO


def test_views_have_pictures_and_images_none() -> None:
    assert drawing_function(task_class("views").pictures) is draw
    assert task_class("images").pictures is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ocd_core.tasks.views.pictures", "'module:function', not 'ocd_core.tasks.views.pictures'"),
        (":draw", "cannot import"),
        ("ocd_core.nowhere:draw", "No module named 'ocd_core.nowhere'"),
        ("ocd_core.tasks.views.pictures:paint", "has no attribute 'paint'"),
        ("ocd_core.tasks.views.pictures:FRAMES", "'module:function', not"),
    ],
)
def test_a_name_that_leads_nowhere(target, message) -> None:
    with pytest.raises(UserError, match=message):
        drawing_function(target)


def test_a_domain_without_pictures_needs_no_trained_run(tmp_path, monkeypatch) -> None:
    write_toy_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    illustrate.main("toy")
    run = Artifacts("toy")
    assert [p.name for p in run.pictures.iterdir()] == ["config.json"]


def test_code_of_pictures_is_apart_from_the_code_that_all_stages_depend_on() -> None:
    """Otherwise a new caption would train everything again."""
    views = load_params("tinynerf_demo", REPO)
    assert {"ocd_core.tasks.views.pictures", "ocd_core.drawing", "ocd_core.tasks.views.demo_scene"} <= set(
        pictures_code(views)
    )
    assert "ocd_core.tasks.views.task" in task_code(views)
    assert not {"ocd_core.tasks.views.pictures", "ocd_core.drawing"} & set(task_code(views))
    assert pictures_code(load_params("mnist5k", REPO)) == {}
