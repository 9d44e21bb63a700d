"""The bundle that comes with the package: small, whole, and it predicts what its run did."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ocd_core import Predictor
from ocd_core.bundles.fetch import bundle_folder, own_bundles
from ocd_core.params_files import read_yaml
from tests.support.repository import REPO, repository_files

EXPECTED = json.loads((Path(__file__).parent / "mnist5k-conv2.json").read_text())


def test_it_predicts_the_numbers_of_its_evaluation(
    mnist5k_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first test samples' losses, as the stage `evaluate` wrote them, from a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    predictor = Predictor.from_pretrained("mnist5k-conv2")
    count = len(EXPECTED["base_cross_entropy"])
    assert count == 40
    batch = predictor.task.open(mnist5k_prepared, "test").batch(torch.arange(count))
    found = predictor.predict(batch.inputs, draws=5)
    for outputs, key in (
        (found.base_output, "base_cross_entropy"),
        (found.draws[0], "ocd_cross_entropy"),
        (found.output, "ocd_ensemble_cross_entropy"),
    ):
        loss = F.cross_entropy(outputs.double(), batch.target, reduction="none")
        torch.testing.assert_close(loss, torch.tensor(EXPECTED[key], dtype=torch.float64), rtol=1e-3, atol=1e-5)
    assert (found.draws[0] - found.base_output).abs().mean() > 0.01  # it does draw weights


def test_the_splits_are_those_of_mnist5k() -> None:
    """So that the test samples here are samples that the run has not seen."""
    config = json.loads((bundle_folder("mnist5k-conv2") / "config.json").read_text())
    assert config["data"] == read_yaml(REPO / "params" / "mnist5k.yaml")["data"]


@pytest.mark.parametrize("name", own_bundles())
def test_the_wheel_carries_it_and_stays_small(name: str) -> None:
    prefix = f"ocd_core/bundles/{name}/"
    files = [file for file in repository_files() if file.startswith(prefix)]
    there = [path for path in bundle_folder(name).rglob("*") if path.is_file()]
    assert len(files) == len(there) > 5
    assert sum(path.stat().st_size for path in there) < 1_000_000
    assert f'"{name}/**"' in (REPO / "pyproject.toml").read_text()
