"""The domain of a network, a loss and data that are given in Python.

A process that has the objects (`Given`) keeps them under the fingerprint that stands in the params; another process can
read what was made of them, but not run them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor, nn

from ocd_core.artifacts import read_json, replaced_folder, write_json
from ocd_core.calls.data import Source, StoredSplit, restored, write_split
from ocd_core.calls.model import Taken, check_names
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.provenance import check_files, content_of, write_manifest
from ocd_core.samples import Batch, Split, SplitName, Tensors, as_tuple, flat, map_tensors
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.classification import classification_metrics, mixture, most_probable
from ocd_core.tasks.overlap import SHARED_ROWS, shared_inputs
from ocd_core.tasks.regression import regression_metrics

if TYPE_CHECKING:
    from ocd_core.network.training import BaseFit, BaseTraining

DOMAIN = f"{__name__}:GivenTask"
TEST = "prepared_test"  # beside `prepared`, because the test split is given later than the others
_SUMMARY = "summary.json"
_AGAIN = "call evaluate with the data again"
# classes: scores of each class and a class; numbers: outputs and targets of one shape; other: only the loss is known
Outputs = Literal["classes", "numbers", "other"]

_GIVEN: "WeakValueDictionary[str, Given]" = WeakValueDictionary()


class GivenData(StrictModel):
    """What was given.

    given, train, val: fingerprints of network and loss, and of the rows. inputs: names; by_name: whether the network
    takes them as keywords. taken: what is taken of its output (see `ocd_core.calls.model`). outputs: their kind.
    """

    given: str
    train: str
    val: str
    inputs: list[str]
    by_name: bool
    taken: Taken
    outputs: Outputs

    @field_validator("inputs")
    @classmethod
    def _names(cls, inputs: list[str]) -> list[str]:
        check_names(inputs)
        return inputs


@dataclass(eq=False)
class Given:
    """The objects, with how they are called.

    network: takes tensors (see `ocd_core.calls.model`). loss: of each sample. target: names and whether it is alone.
    sources: the splits as they were given. classes: how many, if the outputs are scores of classes.
    """

    key: str
    network: nn.Module
    loss: Callable[[Any, Any], Tensor]
    target_names: tuple[str, ...] | None = None
    target_single: bool = True
    metrics: Sequence[Metric] = ()
    sources: dict[SplitName, Source] = field(default_factory=dict)
    classes: int | None = None
    _losses: dict[tuple[torch.dtype, str], Callable[[Any, Any], Tensor]] = field(default_factory=dict)

    def keep(self, key: str | None = None) -> "Given":
        """Make these objects known to tasks, under their own fingerprint or another; returns self."""
        _GIVEN[key or self.key] = self
        return self

    def loss_of(self, output: Any, target: Tensors) -> Tensor:
        """The loss of each sample, in the dtype and on the device of the output."""
        first = as_tuple(output)[0]
        target = map_tensors(lambda x: x.to(first.dtype) if x.is_floating_point() else x, target)
        known = restored(as_tuple(target), self.target_names, self.target_single)
        return self._loss_in(first.dtype, first.device)(output, known)

    def _loss_in(self, dtype: torch.dtype, device: torch.device) -> Callable[[Any, Any], Tensor]:
        if not isinstance(self.loss, nn.Module):
            return self.loss
        key = (dtype, str(device))
        if key not in self._losses:
            self._losses[key] = deepcopy(self.loss).to(device, dtype)
        return self._losses[key]


def keep_test(source: Source, folder: Path, classes: int | None) -> None:
    """Write a test split into a folder, with a manifest, unless it is there already and whole.

    Args:
        classes: see `write_split`.

    Raises:
        UserError: see `write_split`.
    """
    found = source.digest()
    with suppress(UserError):  # it is missing or damaged
        check_files(folder, _AGAIN)
        if read_json(folder / _SUMMARY)["digest"] == found:
            return
    with replaced_folder(folder) as dest:
        write_split(source, dest / "test", classes)
        write_json(dest / _SUMMARY, {"digest": found, "samples": len(source)})
        write_manifest(dest, {"stage": "prepare", "params": {}, "code": "", "inputs": {}}, sha256_files(dest))


class GivenTask(Task):
    """A network, a loss and data given in Python (`ocd_core.OCD`)."""

    Data = GivenData
    data: GivenData
    evaluation_batch = 250
    trains_afresh = False

    def __init__(self, data: StrictModel, model_name: str, model_args: dict[str, Any]) -> None:
        super().__init__(data, model_name, model_args)
        found = _GIVEN.get(self.data.given)
        if found is None:
            raise UserError(
                "the network and the loss of this run were given in Python, and this process does not have them: make "
                "the same OCD(model, loss, out=...) again, or OCD.load(bundle, model, loss)"
            )
        self.given = found

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Read train and val once, into files."""
        sizes = {}
        for name in ("train", "val"):
            source = self.given.sources[name]
            write_split(source, dest / name, self.given.classes)
            sizes[name] = {"samples": len(source)}
        splits: dict[SplitName, Split] = {"train": self.open(dest, "train"), "val": self.open(dest, "val")}
        shared = shared_inputs(splits, self.evaluation_batch)
        return {"source": "given in Python", "splits": sizes, SHARED_ROWS: shared}

    def open(self, prepared: Path, split: SplitName) -> StoredSplit:
        """A split that `prepare` wrote, or the test split that `OCD.evaluate` wrote.

        Raises:
            UserError: it is missing, or the test split is damaged.
        """
        folder = prepared.with_name(TEST) / "test" if split == "test" else prepared / split
        if not folder.is_dir():
            raise UserError(f"{folder} is missing; call {'evaluate' if split == 'test' else 'fit'} with the data first")
        if split == "test":  # of the others, the stages check the files
            check_files(folder.parent, _AGAIN)
        return StoredSplit(folder)

    def identity(self, prepared: Path, split: SplitName) -> str | None:
        """The fingerprint of the test rows, which are not among the prepared ones."""
        if split != "test":
            return None
        folder = prepared.with_name(TEST)
        return content_of(folder.name, check_files(folder, _AGAIN)["files"])

    def build_model(self) -> nn.Module:
        """A copy of the network that was given, with its weights."""
        return deepcopy(self.given.network)

    def fit(self, fit: "BaseFit") -> "BaseTraining":
        """The network as it was given; it is trained only for controls that start from it."""
        return fit.by_gradient() if fit.start is not None else fit.as_it_is(self.build_model())

    def loss(self, output: Any, target: Any) -> Tensor:
        """The loss that was given, (N,)."""
        return self.given.loss_of(output, target)

    @property
    def metrics(self) -> Sequence[Metric]:
        """The loss, what suits the kind of outputs, and what was given."""
        usual: Sequence[Metric] = ()
        if self.data.outputs == "classes":
            usual = classification_metrics(lambda output, target: F.cross_entropy(output, target, reduction="none"))[1:]
        elif self.data.outputs == "numbers":
            usual = regression_metrics()
        loss = Metric("loss", self.loss, higher_is_better=False, about="the loss that was given")
        return (loss, *usual, *self.given.metrics)

    def combine(self, outputs_KN: Any) -> Any:
        """Of classes, the logarithm of the mean probabilities; otherwise the mean."""
        return mixture(outputs_KN) if self.data.outputs == "classes" else super().combine(outputs_KN)

    def predicted_class(self, output: Any) -> Tensor | None:
        """The most probable class, int64 (N,); None without classes."""
        return output.argmax(-1) if self.data.outputs == "classes" else None

    def log_probabilities(self, output: Any) -> Tensor | None:
        """Log-softmax of the scores, (N, C); None without classes."""
        return F.log_softmax(output, -1) if self.data.outputs == "classes" else None

    def tempered(self, output: Any, temperature: float) -> Any:
        """Log-probabilities of the scores divided by a temperature."""
        return F.log_softmax(super().tempered(output, temperature), -1)

    def neighbour_features(self, batch: Batch) -> Tensor:
        """The first input, flattened, as float."""
        return flat(batch.inputs[0]).float()

    def describe_output(self, output: Any) -> dict[str, str | float]:
        """The most probable class and its probability, or the numbers."""
        if self.data.outputs != "classes":
            return super().describe_output(output)
        best, probability = most_probable(output)
        return {"class": best, "probability": probability}
