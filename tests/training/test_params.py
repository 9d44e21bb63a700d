import pytest
from pydantic import ValidationError

from ocd_core.training.params import SmallNetworkParams

GOOD = {"width": 4, "updates": 1, "batch_size": 2, "lr": 1e-3, "validate_every": 1, "patience": 1}


@pytest.mark.parametrize("name", GOOD)
def test_every_number_is_positive_and_needed(name):
    assert SmallNetworkParams(**GOOD).model_dump() == GOOD
    with pytest.raises(ValidationError, match=name):
        SmallNetworkParams(**{**GOOD, name: 0})
    with pytest.raises(ValidationError, match=name):
        SmallNetworkParams(**{k: v for k, v in GOOD.items() if k != name})


def test_others_are_refused():
    with pytest.raises(ValidationError, match="depth"):
        SmallNetworkParams(**GOOD, depth=2)
    with pytest.raises(ValidationError, match="width"):
        SmallNetworkParams(**{**GOOD, "width": "4"})
