"""`ocd check`: what is refused before anything runs, and what is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from torch import Tensor

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.models.mlp import MLP
from ocd_core.provenance import Lineage
from ocd_core.scaffold.checking import Check, check_task_params
from tests.support.toy import PLANE, PlaneTask, ToySplit, toy_params


def checked(root: Path, values: dict[str, Any], **groups: dict[str, Any]) -> Check:
    for group, keys in groups.items():
        values = {**values, group: {**values[group], **keys}}
    (root / "params").mkdir(exist_ok=True)
    with (root / "params" / "mine.yaml").open("w") as file:
        YAML().dump(values, file)
    return check_task_params(Lineage.of("mine", root=root))


def test_sizes_layers_and_needs(tmp_path: Path) -> None:
    found = checked(tmp_path, PLANE, tuning={"updates": 0})
    assert found.samples == {"train": 40, "val": 40, "test": 40}
    assert [(x.name, x.shape, x.positions) for x in found.layers] == [("layers.0", (6, 2), 1), ("layers.1", (2, 6), 1)]
    assert found.layer == "layers.0"
    needs = {need.stage: need for need in found.needs}
    trainings = ["train_diffusion", "train_scale", "tune_diffusion", "train_controls"]
    assert list(needs) == ["prepare", "train_base", "score_layers", "overfit", *trainings]
    assert all(need.minutes is not None and need.minutes >= 0 for need in found.needs)
    assert all(needs[name].memory_mb for name in ("train_base", "overfit", "train_diffusion", "train_scale"))
    assert needs["tune_diffusion"].note == "tuning.updates is 0"
    store = needs["overfit"].disk_mb
    assert store is not None
    assert 120 * 4 * 12 / 2**20 < store < 120 * 4 * 100 / 2**20  # Δ of 120 samples, and what else is stored of each
    assert not (tmp_path / "data").exists()


def test_a_pass_is_divided_by_the_samples_that_were_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of samples that differ in shape, only one is."""

    def fixed(run: Callable[[], object]) -> float:
        run()
        return 1.0

    monkeypatch.setattr("ocd_core.scaffold.checking.seconds", fixed)
    minutes = []
    for alone in (False, True):
        monkeypatch.setattr(ToySplit, "one_by_one", alone, raising=False)
        needs = {need.stage: need for need in checked(tmp_path, PLANE, tuning={"updates": 0}).needs}
        minutes.append(needs["score_layers"].minutes)
    assert minutes[0] is not None
    assert minutes[1] == pytest.approx(8 * minutes[0])


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    network = {"name": "mlp", "args": {"in_features": 3, "out_features": 2, "hidden": [6]}}
    with pytest.raises(UserError, match=r"network of base.model does not fit the data \(inputs \(2, 2\)\); change it"):
        checked(tmp_path, PLANE, base={"model": network})
    with pytest.raises(UserError, match="layer 'none' does not exist"):
        checked(tmp_path, PLANE, layer={"select": "none"})
    with pytest.raises(UserError, match="components is 40, but 40 training"):
        checked(tmp_path, PLANE, diffusion={"representation": {"name": "pca", "components": 40, "metric": "euclidean"}})
    with pytest.raises(UserError, match="factored is not exact for layer 'embed', which sees 3 positions"):
        checked(tmp_path, toy_params(), layer={"select": "embed"})


def test_layers_that_cannot_move_say_why(tmp_path: Path) -> None:
    found = checked(tmp_path, toy_params(), layer={"select": "entropy"})
    why = {layer.name: layer.why_not for layer in found.layers}
    assert why["head"] is None
    assert why["embed"] is not None
    assert found.layer == "head"
    assert isinstance(Lineage.of("mine", root=tmp_path).params, Params)


class KeepsActivation(MLP):
    """A forward that keeps a tensor, which has a graph after an update."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x)
        return self.kept


class MixesSamples(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


def test_networks_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlaneTask, "build_model", lambda task: KeepsActivation(2, 2, [6]))
    assert checked(tmp_path, PLANE).layer == "layers.0"
    monkeypatch.setattr(PlaneTask, "build_model", lambda task: MixesSamples(2, 2, [6]))
    with pytest.raises(UserError, match="mixes the samples of a batch"):
        checked(tmp_path, PLANE)
