"""The `data` group of text tasks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocd_core.strict import Positive, PositiveInt, StrictModel

Files = Annotated[list[str], Field(min_length=1)]


class FinetuneParams(StrictModel):
    """Contrastive fine-tuning of the encoder on pairs of training texts, before any text is encoded (SetFit)."""

    method: Literal["none", "setfit"]  # none: the encoder stays as it is, and the other keys have no effect
    iterations: PositiveInt  # pairs of each kind (same class, different classes) that every text gives
    epochs: PositiveInt  # over all pairs
    batch_size: PositiveInt  # pairs
    lr: Positive


class TextData(StrictModel):
    """The `data` group of text tasks."""

    path: str  # a hub id, or a local folder of JSON lines, CSV or Parquet files
    train_files: Files  # file names or patterns inside path; the shots are drawn from them, nothing else is used
    test_files: Files
    text_column: str
    label_column: str  # integers from 0
    shots: PositiveInt  # labelled texts of each class, for train and val together
    val_shots: PositiveInt  # how many of them are val
    test_size: PositiveInt | None  # null: the whole test part; else a seeded subset, the same for all draws
    split_seed: Annotated[int, Field(ge=0, lt=2**63)]  # the draw: of the shots, and of the fine-tuning
    encoder: Annotated[str, Field(min_length=1)]  # minilm (in a package), a hub id, or a local folder
    max_tokens: PositiveInt | None  # longer texts are cut; null: at the encoder's own limit
    finetune: FinetuneParams
    headline: Literal["accuracy", "mcc"]  # which of the two stands first in tables

    @model_validator(mode="after")
    def _consistent(self) -> "TextData":
        if self.val_shots >= self.shots:
            raise ValueError(
                f"val_shots ({self.val_shots}) must be below shots ({self.shots}): the shots of a class are divided "
                "into val and train"
            )
        return self
