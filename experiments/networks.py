"""The base network of a task, before any stage has run."""

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.tasks.base import Task


def untrained_network(params: Params) -> nn.Module:
    """With fresh weights; if its size follows from the data, the data is prepared in a temporary folder.

    Raises:
        UserError: the raw data is missing, see `Task.prepare`.
    """
    domain = params.build_task()
    try:
        return domain.build_model()
    except UserError:
        if type(domain).bind is Task.bind:
            raise
    with TemporaryDirectory() as folder:
        domain.prepare(Path(folder))
        domain.bind(Path(folder))
        return domain.build_model()
