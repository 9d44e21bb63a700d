import pytest
from pydantic import ValidationError

from ocd_core.diffusion.sampling_params import SamplingParams

GOOD = {"sampler": "ddim", "steps": 10, "eta": 0.0, "renormalise": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "euler"}, "unknown sampler 'euler'; known are ancestral, ddim, dpm"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"eta": 1.5}, "less than or equal to 1"),
        ({"seed": 3}, "not permitted"),
    ],
)
def test_what_is_refused(change, message):
    assert SamplingParams(**GOOD).sampler == "ddim"
    with pytest.raises(ValidationError, match=message):
        SamplingParams(**{**GOOD, **change})
