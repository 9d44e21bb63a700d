import json
from pathlib import Path

import pytest

from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.params import read_bundle_params
from ocd_core.errors import UserError
from ocd_core.tasks.images.task import ImageClassification
from tests.bundles.support import edit_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text((bundle_folder("mnist5k-conv2") / "config.json").read_text())
    return tmp_path


def test_the_task_and_the_run_are_those_of_the_file(folder: Path) -> None:
    params = read_bundle_params(folder)
    task = params.build_task(folder / "prepared")
    assert isinstance(task, ImageClassification)
    assert task.data.height == 28
    run = params.run(folder)
    assert (run.task, run.seed, run.rank, run.diffusion) == ("mnist5k-conv2", 0, 1, folder / "diffusion")
    assert params.model_dump(mode="json") == {"tuned": None, **json.loads((folder / "config.json").read_text())}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sampling.steps", 0, "sampling.steps: "),
        ("sampling.sampler", "fast", "sampling.sampler: unknown sampler 'fast'"),
        ("more", 1, "more: "),
        ("precision", "float16", "precision: "),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, key: str, value: object, words: str) -> None:
    edit_json(folder / "config.json", key, value)
    with pytest.raises(UserError, match=r"config\.json: .*; get the whole bundle again") as error:
        read_bundle_params(folder)
    assert words in str(error.value)


def test_the_domains_own_params_are_checked(folder: Path) -> None:
    edit_json(folder / "config.json", "data.classes", 1)
    with pytest.raises(UserError, match=r"config\.json: data\.classes: .*greater than or equal to 2"):
        read_bundle_params(folder).build_task(folder / "prepared")
