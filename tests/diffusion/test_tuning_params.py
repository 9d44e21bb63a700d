import pytest
from pydantic import ValidationError

from tests.support.params import tuning_params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": -1}, "greater than or equal to 0"),
        ({"through": "middle"}, "'last' or 'sampler'"),
        ({"draws": 0}, "greater than or equal to 1"),
        ({"lrs": []}, "at least 1 item"),
        ({"lrs": [1e-3, 1e-3]}, "is named twice"),
        ({"delta_weight": -0.1}, "greater than or equal to 0"),
        ({"delta_timesteps": "early"}, "'all' or 'late'"),
        ({"ema": 1.0}, "less than 1"),
        ({"lr": 1e-3}, "not permitted"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        tuning_params(**change)


def test_the_last_step_is_one_whatever_steps_says():
    assert tuning_params(through="last", steps=7).sampler_steps == 1
    assert tuning_params(through="sampler", steps=7).sampler_steps == 7
