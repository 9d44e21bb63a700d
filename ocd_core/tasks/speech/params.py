"""The params group `data` of speech separation."""

from typing import Annotated

from pydantic import Field

from ocd_core.strict import Positive, PositiveInt, StrictModel


class SpeechData(StrictModel):
    """The `data` group of speech separation."""

    path: str  # a folder in LibriMix's layout, such as Libri5Mix/wav8k/min
    train_part: str  # the folder of the training mixtures, and the part in its metadata file's name
    val_part: str
    test_part: str
    train_size: PositiveInt | None  # the first mixtures of the list; null: all
    val_size: PositiveInt | None
    test_size: PositiveInt | None
    sources: Annotated[int, Field(ge=2, le=100)]  # voices of a mixture; base.model must have as many
    sample_rate: PositiveInt
    resample: bool  # whether recordings at another rate are resampled; false: they are an error
    train_seconds: Positive | None  # of a random part of each recording in each epoch of the base; null: all of it
    dynamic_mixing: bool  # whether the base is trained on new mixtures of random training sources in each epoch
    vgg11: str | None  # weights for the encoder of the output's spectrograms; null: a small fixed encoder
