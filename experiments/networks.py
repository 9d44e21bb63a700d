"""The base network of a task, before any stage has run."""

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params
from ocd_core.tasks.base import Task


def untrained_network(task: str, params: Params) -> nn.Module:
    """With fresh weights; if its size follows from the data, the data is prepared, in a temporary folder if need be.

    Raises:
        UserError: the raw data is missing, see `Task.prepare`.
    """
    domain = params.build_task()
    if type(domain).bind is Task.bind:
        return domain.build_model()
    prepared = Artifacts(task).prepared
    if prepared.is_dir():
        domain.bind(prepared)
        return domain.build_model()
    with TemporaryDirectory() as folder:
        domain.prepare(Path(folder))
        domain.bind(Path(folder))
        return domain.build_model()
