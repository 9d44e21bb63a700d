"""Columns as the network's inputs: numbers transformed, categories one-hot, both fitted on the training rows.

The rules, which the summary of `prepare` repeats:

- A missing number becomes 0 after the transform (the training median with `quantile`, the mean with `standard`); if
  the training rows lack some, a feature `<column> is missing` says where.
- A category that the training rows do not have is 0 in all features of its column. A missing one is a category of its
  own if the training rows lack some. If all categories of the training rows are numbers, `1.0` and `1` are the same.

Dims: N rows, F features, C columns of numbers, Q quantiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.rng import numpy_generator
from ocd_core.tasks.prepared import need_file
from ocd_core.tasks.tabular.columns import (
    LARGEST,
    Column,
    Columns,
    is_missing,
    is_text,
    numbers_of,
    same_numbers,
    texts_of,
)
from ocd_core.weights import described_by, read_tensors, save_tensors

DESCRIPTION, TENSORS = "features.json", "features.safetensors"
PREPARE_AGAIN = "run the stage prepare again"
MOST_CATEGORIES = 1000  # of a column
# the protocol's, which parts equal values; divided by the column's deviation, it would hide a column of small numbers
_NOISE, _MOST_NOISE = 1e-3, 1e-2


@dataclass(frozen=True)
class Features:
    """A fitted transform.

    numbers: names of columns. indicated: those with a feature that says whether they are missing. categories: {column:
    its categories, where None is "missing"}. transform: `quantile`, `standard` or `none`. fitted: its tensors, float64:
    `quantiles` (Q, C); or `mean` and `scale` (C,).
    """

    numbers: tuple[str, ...]
    indicated: tuple[str, ...]
    categories: Mapping[str, Sequence[str | None]]
    transform: str
    fitted: Mapping[str, Tensor]

    @classmethod
    def fit(cls, train: Columns, transform: str, seed: int) -> "Features":
        """Fit on the training rows.

        Raises:
            UserError: a column has no value in the training rows, or more than `MOST_CATEGORIES` categories.
        """
        for name, values in train.items():
            if bool(is_missing(values).all()):
                raise UserError(f"column {name!r} is missing in every training row; leave it out with data.features")
        numbers = tuple(name for name, values in train.items() if not is_text(values))
        categories = {name: _categories(values) for name, values in train.items() if is_text(values)}
        for name, different in categories.items():
            if len(different) > MOST_CATEGORIES:
                raise UserError(
                    f"column {name!r} has {len(different)} categories, more than {MOST_CATEGORIES}, as names and dates "
                    "have; leave it out with data.features"
                )
        indicated = tuple(name for name in numbers if bool(is_missing(train[name]).any()))
        fitted = _fit(_matrix(train, numbers), transform, seed) if numbers else {}
        return cls(numbers, indicated, categories, transform, fitted)

    @property
    def names(self) -> list[str]:
        """The features' names, in order."""
        of_categories = [
            f"{column} = {'missing' if category is None else category}"
            for column, found in self.categories.items()
            for category in found
        ]
        return [*self.numbers, *(f"{name} is missing" for name in self.indicated), *of_categories]

    def apply(self, columns: Columns, where: str) -> Tensor:
        """The rows of a table as the model's inputs, float32 (N, F).

        Raises:
            UserError: a column is missing, holds something else than numbers, or numbers so far from those of training
                that float32 cannot hold them; the message names `where`.
        """
        columns = self._as_trained(columns, where)
        parts: list[npt.NDArray[Any]] = []
        if self.numbers:
            parts.append(np.nan_to_num(self._transformed(_matrix(columns, self.numbers)), nan=0.0))
            self._refuse_infinite(parts[0], where)
        parts += [is_missing(columns[name])[:, None] for name in self.indicated]
        parts += [_one_hot(columns[name], found) for name, found in self.categories.items()]
        return torch.from_numpy(np.concatenate([part.astype(np.float32) for part in parts], 1))

    def _refuse_infinite(self, x_NC: Column, where: str) -> None:
        rows, places = np.nonzero(np.abs(x_NC) > LARGEST)
        if len(rows):
            raise UserError(
                f"column {self.numbers[places[0]]!r} of {where} is too far from its values in training, in row "
                f"{rows[0]}: float32 cannot hold it after the transform"
            )

    def _as_trained(self, columns: Columns, where: str) -> Columns:
        """The columns as numbers or text, as in training."""
        for name in (*self.numbers, *self.categories):
            if name not in columns:
                raise UserError(f"{where} has no column {name!r}, which the training rows have")
        found: Columns = {name: self._categories_of(columns, name) for name in self.categories}
        return found | {name: numbers_of(columns[name], name, where) for name in self.numbers}

    def _categories_of(self, columns: Columns, name: str) -> Column:
        """The texts of a column of categories; a number that training wrote differently is as in training."""
        texts, known = texts_of(columns[name]), self.categories[name]
        same = same_numbers({*texts} - {*known, None}, [text for text in known if text is not None])
        return np.array([same.get(text, text) for text in texts], dtype=object)

    def unseen(self, columns: Columns) -> dict[str, list[str | None]]:
        """{column of categories: those of its values that the training rows do not have}, without empty lists.

        There is one for each row that has one; None is a missing one.
        """
        found = {
            name: [value for value in self._categories_of(columns, name) if value not in known]
            for name, known in self.categories.items()
        }
        return {name: values for name, values in found.items() if values}

    def _transformed(self, x_NC: Column) -> Column:
        if self.transform == "standard":
            scaled: Column = (x_NC - self.fitted["mean"].numpy()) / self.fitted["scale"].numpy()
            return scaled
        if self.transform == "none":
            return x_NC
        found: Column = _quantile_transformer(self.fitted["quantiles"].numpy()).transform(x_NC)
        return found

    def save(self, folder: Path) -> None:
        """Write two files."""
        described = {
            "numbers": list(self.numbers), "indicated": list(self.indicated), "transform": self.transform,
            "categories": {name: list(found) for name, found in self.categories.items()}, "names": self.names,
        }  # fmt: skip
        write_json(folder / DESCRIPTION, described)
        save_tensors(dict(self.fitted), folder / TENSORS)

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Read what `save` wrote.

        Raises:
            UserError: a file is missing or damaged.
        """
        tensors = read_tensors(need_file(folder / TENSORS))
        described = read_json(need_file(folder / DESCRIPTION))
        with described_by(folder / DESCRIPTION, PREPARE_AGAIN):
            return cls(
                tuple(described["numbers"]),
                tuple(described["indicated"]),
                dict(described["categories"]),
                described["transform"],
                tensors,
            )


def _matrix(columns: Columns, names: Sequence[str]) -> Column:
    return np.stack([columns[name].astype(np.float64) for name in names], 1)


def _one_hot(values: Column, categories: Sequence[str | None]) -> Column:
    """(N, categories); a row of zeros for a value that is none of them."""
    places = {category: i for i, category in enumerate(categories)}
    found = np.zeros((len(values), len(categories)), np.float32)
    for row, value in enumerate(values):
        if value in places:
            found[row, places[value]] = 1
    return found


def _categories(values: Column) -> list[str | None]:
    """The different texts in order; a missing one comes last."""
    found: list[str | None] = sorted({value for value in values if value is not None})
    return [*found, None] if bool(is_missing(values).any()) else found


def _fit(x_NC: Column, transform: str, seed: int) -> dict[str, Tensor]:
    if transform == "none":
        return {}
    if transform == "standard":
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(x_NC)
        return {"mean": torch.from_numpy(scaler.mean_), "scale": torch.from_numpy(scaler.scale_)}
    # as in the code of Gorishniy et al. (2021): noise on the values (but of at most a hundredth), and as many quantiles
    deviation_C = np.nanstd(x_NC, axis=0, keepdims=True)
    noise_NC = numpy_generator(seed, "quantile noise").standard_normal(x_NC.shape)
    strength_C = np.minimum(_NOISE / np.maximum(deviation_C, _NOISE), _MOST_NOISE * deviation_C)
    noisy_NC = x_NC + strength_C * noise_NC
    count = min(len(x_NC), max(min(len(x_NC) // 30, 1000), 10))
    quantiles_QC = _quantile_transformer(None, count).fit(noisy_NC).quantiles_
    return {"quantiles": torch.from_numpy(quantiles_QC)}


def _quantile_transformer(quantiles_QC: Column | None, count: int = 0) -> Any:
    """Scikit-learn's transform to the normal distribution; with quantiles, as it is after `fit`."""
    from sklearn.preprocessing import QuantileTransformer

    if quantiles_QC is not None:
        count = len(quantiles_QC)
    made = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=None)
    if quantiles_QC is not None:
        made.quantiles_, made.n_quantiles_ = quantiles_QC, count
        made.n_features_in_, made.references_ = quantiles_QC.shape[1], np.linspace(0, 1, count)
    return made
