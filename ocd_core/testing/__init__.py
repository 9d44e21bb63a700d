"""`check_task`: does a task of yours keep the Task protocol? Call it from your own tests.

Every violation is an AssertionError that says what is wrong and what to do. Nothing is trained, so it takes about
as long as preparing the data twice.

Dims: N samples, K networks.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.layers import matrix_layers
from ocd_core.samples import SPLITS, Batch, Condition, Split, as_tuple, map_tensors, only
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.draws_inputs import step_batch
from ocd_core.tasks.pictures import drawing_function

__all__ = ["check_task"]

_SAMPLES = 4
_SEED = 0
_NETWORKS = 3


def check_task(
    task: Task, folder: Path | str, layers: Sequence[str] | None = None, example: Path | None = None
) -> None:
    """Check that a task keeps the protocol of `ocd_core.tasks.Task`.

    Args:
        task: with params that suit a test (few samples, a small network).
        folder: an empty folder to prepare the data into.
        layers: the layers to cut the network at (default: every layer whose weight is a matrix).
        example: a file for `read_input`, where the task reads single inputs.

    Raises:
        AssertionError: the first violation.
    """
    _require(
        issubclass(type(task).Data, StrictModel) and isinstance(task.data, type(task).Data),
        f"set {type(task).__name__}.Data to a StrictModel and build the task from an instance of it",
    )
    prepared = _check_prepare(task, Path(folder))
    splits = {name: task.open(prepared, name) for name in SPLITS}
    for name, split in splits.items():
        _check_split(split, name)
    train = splits["train"]
    ids = _some_ids(train)
    batch = train.batch(ids)
    _check_step_batches(task, train, ids)
    model = _check_model(task, batch)
    with torch.no_grad():
        output = model(*_doubled(batch).inputs)
    _check_loss(task, output, batch)
    _check_metrics(task, output, batch)
    _check_combine(task, output, batch)
    _check_conditions(task, model, batch, layers)
    _check_words(task, model, batch, output, example)
    _check_pictures(task)


def _require(kept: bool, message: str) -> None:
    """An assertion that `python -O` does not remove."""
    if not kept:
        raise AssertionError(message)


def _some_ids(split: Split) -> Tensor:
    """Some rows, neither in order nor without a repetition."""
    rows = list(range(min(len(split), _SAMPLES)))
    return torch.tensor([*reversed(rows), rows[0]])


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(b.abs().max()), 1e-30) if b.numel() else 1.0
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance * scale).all())


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all()) if x.is_floating_point() else True


def _doubled(batch: Batch) -> Batch:
    return replace(batch, inputs=tuple(x.double() if x.is_floating_point() else x for x in batch.inputs))


def _row(batch: Batch, i: int) -> Batch:
    return batch.select(slice(i, i + 1))


def _equal(a: Batch, b: Batch) -> bool:
    return (
        len(a.inputs) == len(b.inputs)
        and all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
        and len(as_tuple(a.target)) == len(as_tuple(b.target))
        and all(torch.equal(x, y) for x, y in zip(as_tuple(a.target), as_tuple(b.target), strict=True))
    )


def _check_prepare(task: Task, folder: Path) -> Path:
    first, second = folder / "prepared", folder / "prepared_again"
    for dest in (first, second):
        dest.mkdir(parents=True)
        summary = task.prepare(dest)
        try:
            _require(isinstance(summary, dict), "prepare must return a dict of plain values")
            json.dumps(summary, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"prepare must return plain values that JSON can hold: {error}") from error
    files = [sha256_files(dest) for dest in (first, second)]
    _require(bool(files[0]), "prepare wrote no file into the folder that it was given")
    changed = sorted(set(files[0].items()) ^ set(files[1].items()))
    _require(
        not changed,
        f"prepare must write the same bytes every time, but {', '.join(sorted({n for n, _ in changed}))} differ: "
        "seed what is random, keep times and paths out of the files",
    )
    return first


def _check_split(split: Split, name: str) -> None:
    _require(isinstance(split, Split), f"open(..., {name!r}) must return a Split: __len__ and batch(sample_id)")
    _require(len(split) > 0, f"the {name} split is empty")
    ids = _some_ids(split)
    batch = split.batch(ids)
    _check_batch(batch, ids, f"the {name} split's batch")
    for i, row in enumerate(ids):
        alone = split.batch(row.reshape(1))
        _require(
            _equal(_row(batch, i), alone),
            f"the {name} split's batch must give the samples in the order asked for, each the same at every call and "
            f"whatever its neighbours: sample {int(row)} at place {i} is not what batch([{int(row)}]) gives",
        )


def _check_batch(batch: Batch, ids: Tensor, what: str) -> None:
    _require(isinstance(batch, Batch), f"{what} must be an ocd_core.tasks.Batch")
    _require(
        isinstance(batch.inputs, tuple) and len(batch.inputs) > 0 and all(isinstance(x, Tensor) for x in batch.inputs),
        f"{what}: inputs must be a tuple of tensors, what the model is called with",
    )
    for part, value in (("inputs", batch.inputs), ("target", as_tuple(batch.target))):
        for x in value:
            _require(
                x.dim() > 0 and len(x) == len(ids),
                f"{what}: {part} of shape {tuple(x.shape)} for {len(ids)} samples; keep the samples in the first axis",
            )
            _require(_finite(x), f"{what}: {part} has NaN or infinite values")
    _require(
        batch.sample_id.dtype == torch.int64 and torch.equal(batch.sample_id, ids),
        f"{what}: sample_id must be the rows that were asked for (int64), in their order",
    )


def _check_step_batches(task: Task, train: Split, ids: Tensor) -> None:
    for name, make in _step_batches(task, train).items():
        batch = make(ids, 0)
        _check_batch(batch, ids, name)
        _require(_equal(batch, make(ids, 0)), f"{name} must be a function of its arguments: use ocd_core.rng for draws")
    make = _step_batches(task, train)["overfit_batch"]
    batch = make(ids, 0)
    for i in range(len(ids)):
        _require(
            _equal(_row(batch, i), _row(make(ids[i:], 0), 0)),
            "overfit_batch must give a sample the same inputs whatever its neighbours: draw by sample id and replica "
            "(ocd_core.rng.sample_normal), not once a batch",
        )


def _step_batches(task: Task, train: Split) -> dict[str, Callable[[Tensor, int], Batch]]:
    def overfit_batch(ids: Tensor, step: int) -> Batch:
        return step_batch(task, train, ids, torch.zeros_like(ids), step, _SEED)

    return {
        "training_batch": lambda ids, step: task.training_batch(train, ids, _SEED, step + 1),
        "overfit_batch": overfit_batch,
    }


def _check_model(task: Task, batch: Batch) -> nn.Module:
    """Returns the network in eval mode and float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(_SEED)
        model = task.build_model()
        torch.manual_seed(_SEED)
        again = task.build_model()
    _require(isinstance(model, nn.Module), "build_model must return a torch.nn.Module")
    state, other = model.state_dict(), again.state_dict()
    _require(
        list(state) == list(other) and all(torch.equal(v, other[k]) for k, v in state.items()),
        "build_model must give the same weights for the same torch.manual_seed: draw them with torch's own generator",
    )
    _require(
        bool(matrix_layers(model)), "the model has no layer that could move: no Linear, Conv1d or Conv2d without groups"
    )
    model.eval()
    with torch.no_grad():
        output = model(*batch.inputs)
        _require(isinstance(output, Tensor), f"the model must return one tensor, not a {type(output).__name__}")
        _require(
            output.dim() > 0 and len(output) == len(batch),
            f"the model's output has shape {tuple(output.shape)} for {len(batch)} samples: keep the samples in the "
            "first axis",
        )
        _require(output.is_floating_point() and _finite(output), "the model's output must be finite floating point")
        _require(
            torch.equal(output, model(*batch.inputs)), "the model in eval mode gives another output at a second call"
        )
        double = copy.deepcopy(model).double()
        try:
            output = double(*_doubled(batch).inputs)
        except RuntimeError as error:
            raise AssertionError(
                f"the model must also run in float64 (make constants in the dtype of the inputs): {error}"
            ) from error
        _require(
            output.dtype == torch.float64,
            f"the model's output is {output.dtype} for float64 weights and inputs: do not cast inside of the model",
        )
        for i in range(len(batch)):
            alone = double(*_row(_doubled(batch), i).inputs)
            _require(
                _close(output[i : i + 1], alone, 1e-9),
                "the model mixes the samples of a batch (a sample alone gives another output): normalise within a "
                "sample, not over the batch",
            )
    return double


def _check_loss(task: Task, output: Tensor, batch: Batch) -> None:
    target = only(batch.target)
    for dtype in (torch.float32, torch.float64):
        value = output.detach().to(dtype).requires_grad_(True)
        loss_N = task.loss(value, target)
        _require(
            isinstance(loss_N, Tensor) and loss_N.shape == (len(target),),
            f"loss must give one number a sample, shape ({len(target)},), not "
            f"{tuple(loss_N.shape) if isinstance(loss_N, Tensor) else type(loss_N).__name__}: no mean over the batch",
        )
        _require(
            loss_N.dtype == dtype,
            f"loss must keep the dtype of the output: {loss_N.dtype} for {dtype} (in float32 the weight change of a "
            "confident sample is noise)",
        )
        _require(_finite(loss_N), "loss is NaN or infinite for an untrained network")
        _require(loss_N.requires_grad, "loss is not differentiable in the output: it was detached or is made of counts")
        (gradient,) = torch.autograd.grad(loss_N.sum(), value)
        _require(_finite(gradient), "the gradient of loss is NaN or infinite for an untrained network")
    _check_alone(lambda o, b: task.loss(o, b.target), output, batch, "loss")


def _check_alone(measure: Callable[[Tensor, Batch], Tensor], output: Tensor, batch: Batch, what: str) -> None:
    together = measure(output, batch)
    for i in range(len(batch)):
        _require(
            _close(together[i : i + 1], measure(output[i : i + 1], _row(batch, i)), 1e-9),
            f"{what} of a sample depends on the other samples of the batch",
        )


def _check_metrics(task: Task, output: Tensor, batch: Batch) -> None:
    metrics = list(task.metrics)
    _require(bool(metrics) and all(isinstance(m, Metric) for m in metrics), "metrics must be a sequence of Metric")
    names = [m.name for m in metrics]
    _require(len(set(names)) == len(names) and all(names), f"metrics need names of their own, found {names}")
    _require(not {"loss", "n"} & set(names), "the names loss and n are taken: rename the metric")
    for metric in metrics:
        what = f"metric {metric.name!r}"
        if metric.kind != "per_sample":
            continue
        values = metric.measure(output, batch)
        _require(
            values.shape == (len(batch),),
            f"{what} must give one number a sample, shape ({len(batch)},), not {tuple(values.shape)}",
        )
        _require(_finite(values), f"{what} is NaN or infinite for an untrained network")
        _check_alone(metric.measure, output, batch, what)
        mean = float(values.double().mean())
        points = [metric.finish(p) for p in (mean, mean + abs(mean) * 0.5 + 0.1, mean + abs(mean) + 0.2)]
        _require(
            points == sorted(set(points)) or points == sorted(set(points), reverse=True),
            f"finish of {what} must be monotonic; it gave {points} for rising means",
        )


def _check_combine(task: Task, output: Tensor, batch: Batch) -> None:
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(_NETWORKS, *output.shape, generator=generator, dtype=output.dtype)
    outputs_KN = output + 0.1 * float(output.abs().mean()) * noise
    combined = task.combine(outputs_KN)
    _require(
        combined.shape == output.shape and combined.dtype == output.dtype,
        f"combine must turn outputs of shape (K, *{tuple(output.shape)}) into {tuple(output.shape)} of the same dtype, "
        f"not {tuple(combined.shape)} of {combined.dtype}",
    )
    measures: dict[str, Callable[[Tensor, Batch], Tensor]] = {"loss": lambda o, b: task.loss(o, b.target)}
    measures |= {m.name: m.measure for m in task.metrics if m.kind == "per_sample"}
    for name, measure in measures.items():
        wanted = measure(output, batch)
        same = measure(task.combine(output.expand(_NETWORKS, *output.shape)), batch)
        _require(
            _close(same, wanted, 1e-6),
            f"combine of {_NETWORKS} equal outputs must score as one of them ({name} differs)",
        )
        reordered = measure(task.combine(outputs_KN.flip(0)), batch)
        _require(
            _close(reordered, measure(combined, batch), 1e-6),
            f"combine must not depend on the order of the networks ({name} differs)",
        )


def _check_conditions(task: Task, model: nn.Module, batch: Batch, layers: Sequence[str] | None) -> None:
    refused = []
    names = list(matrix_layers(model)) if layers is None else list(layers)
    for name in names:
        try:
            cut_model = CutModel(copy.deepcopy(model).float(), name)
            cut = cut_model.prefix(batch.inputs)
        except UserError as error:
            refused.append(str(error))
        else:
            _check_condition(task, cut_model, cut, batch)
    _require(len(refused) < len(names), f"the model cannot be cut at any of its layers: {'; '.join(refused)}")
    _require(layers is None or not refused, f"the model cannot be cut at a layer you named: {'; '.join(refused)}")
    stored = task.stored_target(batch)
    _require(
        isinstance(stored, Tensor) and stored.dim() > 0 and len(stored) == len(batch) and _finite(stored),
        f"stored_target must be a finite tensor with {len(batch)} samples in the first axis",
    )


def _check_condition(task: Task, model: CutModel, cut: Cut, batch: Batch) -> None:
    what = f"condition for layer {model.layer_name!r}"
    with torch.no_grad():
        activation, output = (only(x).float() for x in model.forward(cut))

    def condition(of: Batch, rows: slice) -> Condition:
        return task.condition(of, cut.layer_input[rows], activation[rows], output[rows])

    found = condition(batch, slice(None))
    _require(isinstance(found, Condition), f"{what} must be an ocd_core.tasks.Condition")
    for part, value in zip(("layer_input", "layer_activation", "base_output"), found.parts(), strict=True):
        _require(
            value.dtype == torch.float32 and value.dim() > 1 and len(value) == len(batch) and _finite(value),
            f"{what}: {part} must be finite float32 of shape (N, ...) for {len(batch)} samples, not "
            f"{value.dtype} {tuple(value.shape)}",
        )
    for i in range(len(batch)):
        alone = condition(_row(batch, i), slice(i, i + 1))
        _require(
            all(_close(a, p[i : i + 1], 1e-5) for a, p in zip(alone.parts(), found.parts(), strict=True)),
            f"{what} of a sample depends on the other samples of the batch",
        )
    unlabelled = condition(replace(batch, target=map_tensors(torch.zeros_like, batch.target)), slice(None))
    _require(
        all(torch.equal(a, b) for a, b in zip(unlabelled.parts(), found.parts(), strict=True)),
        f"{what} reads the target, which is unknown at test time",
    )


def _check_words(task: Task, model: nn.Module, batch: Batch, output: Tensor, example: Path | None) -> None:
    words = task.describe_output(output[0])
    _require(
        isinstance(words, dict) and bool(words) and all(isinstance(v, str | float | int) for v in words.values()),
        f"describe_output must return names with a text or number each, not {words!r}",
    )
    if example is None:
        return
    inputs = task.read_input(example)
    shapes = [(tuple(x.shape), x.dtype) for x in inputs]
    wanted = [(tuple(x[:1].shape), x.dtype) for x in batch.inputs]
    _require(shapes == wanted, f"read_input must give the model's inputs for one sample: {wanted}, not {shapes}")
    with torch.no_grad():
        described = task.describe_output(copy.deepcopy(model).float()(*inputs)[0])
    _require(bool(described), "describe_output says nothing of the example")


def _check_pictures(task: Task) -> None:
    if task.pictures is None:
        return
    try:
        drawing_function(task.pictures)
    except UserError as error:
        raise AssertionError(str(error)) from error
