"""The params that small networks share."""

from ocd_core.strict import Positive, PositiveInt, StrictModel


class SmallNetworkParams(StrictModel):
    """A small network and its training: hidden units, and settings of `ocd_core.training.loop`."""

    width: PositiveInt
    updates: PositiveInt
    batch_size: PositiveInt
    lr: Positive
    validate_every: PositiveInt
    patience: PositiveInt
