"""How a domain's own pictures are found, and that domains without any have none."""

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.tasks import task_class
from ocd_core.tasks.pictures import drawing_function
from ocd_core.tasks.views.pictures import draw
from stages import illustrate
from tests.support.toy import write_toy_params


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
    assert sorted(p.name for p in run.pictures.iterdir()) == ["config.json", "manifest.json"]
