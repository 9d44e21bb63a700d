"""The params group `scale`."""

from typing import Literal

from ocd_core.strict import Count, Rate, StrictModel
from ocd_core.training.params import SmallNetworkParams


class WarmStartParams(StrictModel):
    """Where training on `scale.loss` starts: a network trained on the squared error of ln ρ."""

    updates: Count  # at most; 0: start from the geometric mean of the training ρ
    lr: Rate


class ScaleParams(SmallNetworkParams):
    """The size of a drawn Δ: training of the scale network ρ(x, I(x)) (Eq. 8), and one factor for all Δ."""

    gain: Literal["none", "validated"]  # validated: multiply every drawn Δ by the factor that ocd_gain chose
    loss: Literal["eq8", "log_mse"]
    warm_start: WarmStartParams
