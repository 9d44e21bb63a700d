"""The coordinates in which Δ is regressed."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.codes.representations.dense import Dense
from ocd_core.errors import UserError
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.store import OverfitStore
from tests.support.runs import params_of, row_of


def test_it_holds_every_delta_with_its_magnitude(run: Artifacts) -> None:
    store, space = OverfitStore(run.overfit("train")), row_of(run, "ridge")[0].space
    code = space.encode_store(store)
    deltas = torch.from_numpy(store.deltas())
    if space.representation.name == "factored":
        layer_input = torch.from_numpy(store.read("layer_input"))
        wanted = torch.einsum("noi,ni->no", deltas, layer_input)
        torch.testing.assert_close(space.move(code, layer_input), wanted, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(code.norm(dim=1), deltas.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-7)
    else:
        rebuilt = space.move(code, None)
        flat = (deltas - deltas.mean(0)).flatten(1)
        kept = 1 - float((rebuilt - deltas).square().sum() / flat.square().sum())
        assert kept == pytest.approx(float(space.representation.explained.sum()), abs=1e-3)


class Halves(Dense):
    """A representation of a user's own."""

    name = "halves"


@pytest.mark.parametrize("name", ["dense", f"{__name__}:Halves"])
def test_other_representations_are_regressed_in_principal_components(run: Artifacts, name: str) -> None:
    store, params = OverfitStore(run.overfit("train")), params_of(run).diffusion
    changed = params.representation.model_copy(update={"name": name, "metric": "euclidean"})
    dense = params.model_copy(update={"representation": changed})
    space = DeltaSpace.fit(store, dense, 2)
    assert space.representation.name == "pca"
    assert space.size == 2
    with pytest.raises(UserError, match=r"^controls\.components: .*lower"):
        DeltaSpace.fit(store, dense, 1000)
