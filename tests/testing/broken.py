"""Tasks that are broken in one place, gathered with what `check_task` says of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor, nn

from ocd_core.tasks.base import Task
from ocd_core.testing import check_task
from tests.testing.good import Good, Net


class Cases(dict[str, tuple[type[Task], str]]):
    """Broken tasks by name, with the message that each deserves."""

    def broken(self, message: str) -> Callable[[type[Task]], type[Task]]:
        def register(task: type[Task]) -> type[Task]:
            self[task.__name__] = (task, message)
            return task

        return register

    def refused(self, name: str, folder: Path) -> None:
        task, message = self[name]
        (folder / "x.json").write_text("[0.5, 1.0, 2.0]")
        with pytest.raises(AssertionError, match=message):
            check_task(task(), folder / "t", example=folder / "x.json")


class ChangedModel(Good):
    """A task whose network's forward is `run`."""

    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        raise NotImplementedError

    def build_model(self) -> nn.Module:
        run = self.run

        class Changed(Net):
            def forward(self, x: Tensor) -> object:
                return run(self, x)

        return Changed()
