from typing import get_args

import pytest
from pydantic import ValidationError

from ocd_core.scale.losses import LOSSES
from ocd_core.scale.params import ScaleParams
from tests.support.params import scale_params as params


def test_every_loss_by_name_exists():
    assert set(get_args(ScaleParams.model_fields["loss"].annotation)) == set(LOSSES)


def test_what_is_refused():
    assert params(warm=0).warm_start.updates == 0
    for change in ({"loss": "mae"}, {"gain": "one"}, {"width": 0}, {"lr": 0.0}, {"hidden": 3}):
        with pytest.raises(ValidationError, match=next(iter(change))):
            params(**change)
    with pytest.raises(ValidationError, match=r"warm_start\.updates"):
        params(warm=-1)
