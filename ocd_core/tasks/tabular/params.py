"""The params group `data` of tables."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocd_core.strict import PositiveInt, StrictModel

_Files = Annotated[list[str], Field(min_length=1)]
_Columns = Annotated[list[str], Field(min_length=1)]


class TabularData(StrictModel):
    """The `data` group of tabular tasks."""

    source: Literal["california", "table", "svmlight"]
    path: str | None  # table: a hub id, or a folder of Parquet or CSV files; svmlight: a folder
    train_files: _Files | None  # file names or patterns inside path
    val_files: _Files | None  # null: val is taken from train
    test_files: _Files | None  # null: test is taken from train
    target: str | None  # the column to predict; svmlight: null
    kind: Literal["regression", "classification"]
    features: _Columns | None  # columns; null: all others, but none that only numbers the rows
    categories: list[str]  # columns of numbers that are categories; columns of text always are
    group: str | None  # a column that says which rows belong together, not a feature; svmlight: the query ids
    transform: Literal["quantile", "standard", "none"]  # of numbers, fitted on train
    ranking_at: PositiveInt | None  # k of NDCG@k over groups; null: no such metric
    train_size: PositiveInt | None  # null: all that is left
    val_size: PositiveInt | None  # null: all of the source's val part, or a tenth of train if it has none
    test_size: PositiveInt | None  # null: all of the source's test part
    split_seed: Annotated[int, Field(ge=0, lt=2**63)]  # not the run's seed: the splits are the same for all seeds

    @model_validator(mode="after")
    def _consistent(self) -> "TabularData":
        if self.source == "california":
            if self.path is not None or self.train_files or self.val_files or self.test_files:
                raise ValueError("source california reads no files; set path and the files of each split to null")
        elif self.path is None or self.train_files is None:
            raise ValueError(f"source {self.source} needs path and train_files")
        if (self.target is None) != (self.source == "svmlight"):
            raise ValueError("name the target column (null for svmlight, whose lines begin with it)")
        if self.source == "svmlight" and (self.features or self.categories or self.group):
            raise ValueError("svmlight files have no named columns; set features and group to null, categories to []")
        if self.test_files is None and self.test_size is None:
            raise ValueError("the source has no test part: give test_size, the number of rows to take from train")
        if self.ranking_at is not None and self.kind != "regression":
            raise ValueError("ranking_at is for kind regression, whose target is the relevance of a row")
        if self.ranking_at is not None and self.group is None and self.source != "svmlight":
            raise ValueError("ranking_at needs group, the column that says which rows are ranked together")
        chosen = [self.target, self.group]
        for name in self.features or []:
            if name in chosen:
                raise ValueError(
                    f"features names {name!r}, which is the {'target' if name == self.target else 'group'}"
                )
        if self.target is not None and self.target == self.group:
            raise ValueError("target and group must be different columns")
        return self
