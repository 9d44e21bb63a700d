"""What prediction needs of a run's params: `config.json` of a bundle.

It is not the whole params file, so that a new param of some other stage does not make bundles unreadable.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from ocd_core.artifacts import read_json
from ocd_core.bundles.layout import AGAIN, PARAMS, BundledRun
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.errors import UserError
from ocd_core.network.params import ModelParams
from ocd_core.strict import StrictModel, first_problem
from ocd_core.tasks import task_class
from ocd_core.tasks.base import Task

DataT = TypeVar("DataT", bound=StrictModel)


class BundleParams(StrictModel):
    """The run, its domain and base network, and how Δ is drawn.

    gain: the factor of every drawn Δ; None: Δ as drawn. tuned: how the tuned diffusion model draws, or None.
    """

    task: str
    seed: int
    rank: int
    domain: str
    data: dict[str, Any]
    model: ModelParams
    precision: Literal["float32", "float64"]
    sampling: SamplingParams
    gain: float | None
    tuned: SamplingParams | None = None  # absent without a tuned model

    def run(self, folder: Path) -> BundledRun:
        """The paths of the bundle in a folder."""
        return BundledRun(self.task, self.seed, self.rank, folder)

    def data_as(self, kind: type[DataT], folder: Path) -> DataT:
        """The params of the task's data; folder: of the bundle, for messages.

        Raises:
            UserError: they are not of this kind.
        """
        try:
            return kind.model_validate(self.data)
        except ValidationError as error:
            raise UserError(f"{folder / PARAMS}: data.{first_problem(error)}; {AGAIN}") from error

    def build_task(self, prepared: Path) -> Task:
        """The task, bound to what the bundle has of its prepared data.

        Raises:
            UserError: the domain is unknown or its params have changed, or something of the prepared data is missing.
        """
        found = task_class(self.domain)
        task = found(self.data_as(found.Data, prepared.parent), self.model.name, self.model.args)
        task.bind(prepared)
        return task


def read_bundle_params(folder: Path) -> BundleParams:
    """The params of the bundle in a folder.

    Raises:
        UserError: they are missing or damaged.
    """
    path = folder / PARAMS
    try:
        return BundleParams.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; {AGAIN}") from error
