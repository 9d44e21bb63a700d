"""The params that small networks share."""

from ocd_core.strict import PositiveInt, Rate, StrictModel, Width


class SmallNetworkParams(StrictModel):
    """A small network and its training: hidden units, and settings of `ocd_core.training.loop`."""

    width: Width
    updates: PositiveInt
    batch_size: PositiveInt
    lr: Rate
    validate_every: PositiveInt
    patience: PositiveInt
