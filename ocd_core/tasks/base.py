"""What a domain must provide: the Task protocol.

A *sample* is whatever is overfitted separately: an image, a view (a batch of rays), a row, a recording, a sentence.
Nothing here assumes classification. The pipeline calls a task in this order:

- `prepare` once; then, in every stage, `bind` and `open` for the splits that it reads;
- `build_model` and `fit` for the base network, or `load_checkpoint`;
- `loss` for layer scores and overfitting, `condition` for I(x), `stored_target` for the label in the store;
- `metrics` and `combine` for the evaluation.

Outputs and targets are one tensor or a tuple of tensors, each with the samples in the first axis. Arguments of type
`Any` are such values: a domain writes its own type. `ocd_core.tasks.draws_inputs` extends the protocol for domains that
draw new inputs of a sample at each step of overfitting.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.samples import Batch, Condition, Split, SplitName, flat, map_tensors
from ocd_core.strict import StrictModel
from ocd_core.tasks.metric import Metric

if TYPE_CHECKING:
    from ocd_core.network.training import BaseFit, BaseTraining

__all__ = ["Metric", "Task"]


class Task(ABC):
    """A domain with its data, base network, loss and metrics.

    Subclass it, set `Data` to the pydantic model of your params' `data` group, and register the class with an
    entry point in the group `ocd.tasks` (or name it `module:Class` in the params). `ocd_core.testing.check_task`
    tests that a task follows the protocol.

    Args:
        data: the validated `data` group.
        model_name, model_args: the base network, from the `base.model` group.
    """

    Data: ClassVar[type[StrictModel]] = StrictModel
    # samples that the base network sees at once outside training; few if one sample is large
    evaluation_batch: ClassVar[int] = 1000
    # the function that draws the domain's own figures, 'module:function' (see ocd_core.tasks.pictures), or None
    pictures: ClassVar[str | None] = None
    # whether `fit` trains a network from fresh weights; a deep ensemble needs that
    trains_afresh: ClassVar[bool] = True

    def __init__(self, data: StrictModel, model_name: str, model_args: dict[str, Any]) -> None:
        self.data = data
        self._model = (model_name, model_args)

    @abstractmethod
    def prepare(self, dest: Path) -> dict[str, Any]:
        """Read the raw data and write train, val and test into `dest`, the same for all seeds.

        Returns a summary of plain values for people: `source`, `licence` (if known), `splits` (`samples` of each), and
        whatever else describes the data. `shared_rows`, the samples that splits share (see `ocd_core.tasks.overlap`),
        is counted by the inputs if it is missing.

        Raises:
            UserError: the raw data is missing or not as expected.
        """

    def bind(self, prepared: Path) -> None:  # noqa: B027  (a hook, which not every domain needs)
        """Read from the prepared data what the network, the loss or the metrics depend on (bins, a target's scale).

        It is called once, before everything except `prepare`. By default it does nothing.
        """

    def travelling(self, prepared: Path) -> dict[str, Path]:
        """The files that `bind` and `read_input` need, {path below `prepared`: file}; by default none.

        `ocd export` puts them into the bundle of a run. The splits are not among them.
        """
        return {}

    @abstractmethod
    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote."""

    def identity(self, prepared: Path, split: SplitName) -> str | None:
        """A fingerprint of a split's rows, for a split that is not among what `prepare` wrote; None, as by default."""
        return None

    @abstractmethod
    def loss(self, output: Any, target: Any) -> Tensor:
        """The loss of each sample, (N,), in the dtype of `output`.

        Layers are scored and samples overfitted with it; by default, the base is trained on it too.
        """

    def training_loss(self, output: Any, target: Any, label_smoothing: float) -> Tensor:
        """The loss that the base is trained on, (N,), with `base.label_smoothing` (a fraction) if it is above 0.

        Raises:
            UserError: smoothing is asked for, which a task does not support by default.
        """
        if label_smoothing:
            raise UserError(
                f"base.label_smoothing is {label_smoothing:g}, but {type(self).__name__} has no labels to smooth; set "
                "it to 0"
            )
        return self.loss(output, target)

    @property
    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """The reported metrics, the most important first."""

    def build_model(self) -> nn.Module:
        """The base network with fresh weights. It takes `*batch.inputs` and keeps samples in the first axis."""
        return build_model(*self._model)

    def with_model(self, name: str | None, args: dict[str, Any]) -> "Task":
        """A copy of the task for another base network.

        Args:
            name, args: as in `base.model`; without a name, the task's own model with these arguments replaced or added.
        """
        found, (own, own_args) = copy(self), self._model
        found._model = (own, {**own_args, **args}) if name is None else (name, args)
        return found

    def with_data(self, **changes: Any) -> Self:
        """A copy of the task with other values in its group `data`, for the same prepared data."""
        found = copy(self)
        found.data = self.data.model_copy(update=changes)
        return found

    def fit(self, fit: "BaseFit") -> "BaseTraining":
        """Train the base network; by default with gradient descent as the params say.

        Override it for a base that is trained in another way, or in two phases: `fit.by_gradient(model)` continues from
        any network, `fit.as_it_is(model)` measures a finished one. All randomness must be a function of `fit.seed`.
        """
        return fit.by_gradient()

    def load_checkpoint(self, model: nn.Module, path: Path) -> None:
        """Load published weights for `base.checkpoint` (safetensors, or torch files without pickled code)."""
        from ocd_core.weights import load_weights

        load_weights(model, path)

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        """A batch for training the base (override for augmentation or jitter)."""
        return split.batch(sample_id)

    def augmented(self, kind: str) -> "Task | None":
        """A copy whose training batches are augmented in another way, for the row `base_further_augmented`.

        None if the domain has no such augmentation, as by default.

        Raises:
            UserError: the domain does not know this kind.
        """
        return None

    def remarks(self) -> list[str]:
        """Sentences that must accompany every result (for example, what replaces a pretrained encoder)."""
        return []

    def condition(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Any, model: nn.Module | None = None
    ) -> Condition:
        """I(x) for the encoders, from the base network's own values (float32); by default unchanged but flattened.

        `model` is the base network in float32, for domains whose I(x) needs more of it (a view's depth weights). The
        target of `batch` must not be used, because it is the label.
        """
        return Condition(flat(layer_input), flat(activation), flat(output))

    def condition_observed(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Any, observed: Sequence[Tensor]
    ) -> Condition:
        """The same I(x) for a base network that names modules in `fx_observed` (see `ocd_core.network.tracing`).

        `observed`: what each of them gave in the same pass, float32, so that `condition` need not run the network for
        it. By default it is of no use.
        """
        return self.condition(batch, layer_input, activation, output)

    def stored_target(self, batch: Batch) -> Tensor:
        """What the overfit store keeps as the sample's label, (N,) or (N, ...); small and numeric.

        By default the target itself or, if it has several tensors, their values side by side.
        """
        return batch.target if isinstance(batch.target, Tensor) else flat(batch.target)

    def combine(self, outputs_KN: Any) -> Any:
        """An ensemble's output from K networks' outputs (K, N, ...): their mean by default."""
        return map_tensors(lambda x: x.mean(0), outputs_KN)

    def predicted_class(self, output: Any) -> Tensor | None:
        """The class that each output stands for, int64 (N,), comparable with the target; None without classes."""
        return None

    def log_probabilities(self, output: Any) -> Tensor | None:
        """The logarithm of each class's probability, (N, C), in the dtype of `output` and differentiable in it.

        None without classes. It is for rows that read how sure the network is, such as `tent`, and for temperatures.
        """
        return None

    def tempered(self, output: Any, temperature: float) -> Any:
        """An output with its logits divided by a temperature, in a form that the loss and the metrics take.

        By default the `log_probabilities` divided by it; override it if outputs are not scores of classes alone.
        """
        found = self.log_probabilities(output)
        assert found is not None, "a temperature is for classes"
        return found / temperature

    def neighbour_features(self, batch: Batch) -> Tensor:
        """Raw x of each sample for the nearest-neighbour row, (N, D), compared by Euclidean distance; not the target.

        By default it is the first input, flattened.
        """
        return flat(batch.inputs[0])

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """One unseen input from a file, for `ocd predict`: the model's inputs with a sample axis of 1."""
        raise UserError(f"{type(self).__name__} cannot read single inputs from files")

    def shown(self, prepared: Path, split: SplitName, sample_id: Sequence[int]) -> list[Tensor] | list[str] | None:
        """Some samples as a reader of the report sees them; by default None: nothing to see.

        Images in 0..1, (H, W) or (H, W, 3), or texts.
        """
        return None

    def describe_output(self, output: Any) -> dict[str, str | float]:
        """One sample's output in words, for `ocd predict`."""
        return {f"y{i}": float(v) for i, v in enumerate(flat(map_tensors(lambda x: x[None], output))[0, :8])}

    def write_output(self, output: Any, dest: Path, name: str) -> list[Path]:
        """Write one sample's output into files of the folder `dest` whose names begin with `name`, for `ocd predict`.

        Returns their paths; by default none, for outputs that `describe_output` says in full.
        """
        return []
