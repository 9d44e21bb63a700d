"""Checks of what a task computes from its network's outputs: per-sample losses and metrics, ensembles, classes.

Dims: N samples, K networks.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import Batch, Split, Tensors, as_tuple, groups_of, map_tensors, select, stack
from ocd_core.tasks.base import Metric, Task
from ocd_core.testing.common import SEED, as_double, close, described, finite, require, row, spread_ids

Measure = Callable[[Tensors, Batch], Tensor]
NETWORKS = 3
_SPREAD = 32  # rows on which a metric is tried
_CHANGED = 4  # how many of them are changed, one after the other
_SCALES = (0.0, 0.3, 3.0)  # of the noise on the outputs, times their standard deviation


def measures(task: Task) -> dict[str, Measure]:
    """Everything that gives one number per sample: the loss, and per-sample metrics."""
    found: dict[str, Measure] = {"loss": lambda output, batch: task.loss(output, batch.target)}
    return found | {f"metric {m.name!r}": _of_two(m) for m in task.metrics if m.kind == "per_sample"}


def _of_two(metric: Metric) -> Measure:
    """The metric; of two networks if it sees draws, since one has no spread."""
    if metric.sees != "draws":
        return metric.measure
    return lambda output, batch: metric.measure(output, batch, map_tensors(lambda x: torch.stack([x, 0.9 * x]), output))


def check_metrics(task: Task, output: Tensors, split: Split) -> None:
    """Check losses and metrics on rows spread over a split.

    Args:
        output: the network's output for some samples; the outputs for the others are these with noise.
    """
    metrics = list(task.metrics)
    require(bool(metrics) and all(isinstance(m, Metric) for m in metrics), "metrics must be a sequence of Metric")
    names = [m.name for m in metrics]
    require(len(set(names)) == len(names) and all(names), f"metrics need different names, found {names}")
    require(not {"loss", "n"} & set(names), "the names loss and n are taken: rename the metric")
    batch = split.batch(spread_ids(split, _SPREAD))
    for outputs in _outputs_like(output, len(batch)):
        for name, measure in measures(task).items():
            _check_alone(name, measure, outputs, batch)
        for metric in metrics:
            if metric.kind != "per_sample":
                _check_together(metric, outputs, batch, split)
    for metric in metrics:
        _check_finish(metric, outputs, batch)


def _outputs_like(output: Tensors, count: int) -> Iterator[Tensors]:
    """Outputs for `count` samples: the given ones in turn, with noise of several strengths."""
    count_given = len(as_tuple(output)[0])
    rows = torch.arange(count) % count_given
    generator = torch.Generator().manual_seed(SEED)

    def noisy(x: Tensor, scale: float) -> Tensor:
        noise = torch.randn(count, *x.shape[1:], generator=generator, dtype=x.dtype)
        return x[rows] + scale * (float(x.std()) if x.numel() > 1 else 1.0) * noise

    for scale in _SCALES:
        yield map_tensors(lambda x: noisy(x, scale), output)  # noqa: B023


def _check_alone(name: str, measure: Measure, output: Tensors, batch: Batch) -> None:
    """Check that there is one number per sample, which no other sample changes."""
    together = measure(output, batch)
    count = len(batch)
    require(
        isinstance(together, Tensor) and together.shape == (count,),
        f"{name} must give one number per sample, shape ({count},), not "
        f"{described(together) if isinstance(together, Tensor) else type(together).__name__}",
    )
    require(finite(together), f"{name} is NaN or infinite for an untrained network")
    mixed = f"{name} of a sample depends on the other samples of the batch"
    for i in range(count):
        require(close(together[i : i + 1], measure(select(output, slice(i, i + 1)), row(batch, i)), 1e-9), mixed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
    require(close(measure(select(output, order), batch.select(order)), together[order], 1e-9), mixed)
    for i in range(min(_CHANGED, count)):
        others = torch.arange(count) != i
        other_output = map_tensors(lambda x: _with_row_of_another(x, i), output)  # noqa: B023
        changed = measure(other_output, batch)
        require(close(changed[others], together[others], 1e-9), mixed)
        alone = measure(select(other_output, slice(i, i + 1)), row(batch, i))
        require(close(changed[i : i + 1], alone, 1e-9), mixed)


def _with_row_of_another(x: Tensor, i: int) -> Tensor:
    x = x.clone()
    x[i] = 10 * x[(i + 1) % len(x)] + 1
    return x


def _check_together(metric: Metric, output: Tensors, batch: Batch, split: Split) -> None:
    """Check that a metric of groups or of a split is finite and does not depend on the order of the samples.

    It may be undefined, which it says with a ValueError.
    """
    what = f"metric {metric.name!r}"
    groups = groups_of(split)
    chosen = None if groups is None else groups[batch.sample_id]
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(SEED))
    try:
        found = _measure_together(metric, output, batch, chosen)
        shuffled = None if chosen is None else chosen[order]
        again = _measure_together(metric, select(output, order), batch.select(order), shuffled)
    except UserError as error:
        raise AssertionError(str(error)) from error
    except ValueError:
        return
    require(finite(found), f"{what} is NaN or infinite for an untrained network")
    require(close(again, found, 1e-6), f"{what} depends on the order of the samples")


def _measure_together(metric: Metric, output: Tensors, batch: Batch, groups: Tensor | None) -> Tensor:
    if metric.over_split is None:
        return metric.measure_groups(output, batch.target, groups)
    return torch.tensor([metric.measure_split(output, batch.target)], dtype=torch.float64)


def _check_finish(metric: Metric, output: Tensors, batch: Batch) -> None:
    if metric.kind == "over_split":
        return
    mean = float(_of_two(metric)(output, batch).double().mean()) if metric.kind == "per_sample" else 0.5
    points = [metric.finish(p) for p in (mean, mean + abs(mean) * 0.5 + 0.1, mean + abs(mean) + 0.2)]
    require(
        points == sorted(set(points)) or points == sorted(set(points), reverse=True),
        f"finish of metric {metric.name!r} must be monotonic; it gave {points} for rising means",
    )


def check_combine(task: Task, output: Tensors, batch: Batch) -> None:
    """Check that an ensemble of equal networks scores as one of them, and that their order does not matter."""
    generator = torch.Generator().manual_seed(SEED)

    def noisy(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x + 0.1 * float(x.abs().mean()) * noise

    outputs_KN = stack([map_tensors(noisy, output) for _ in range(NETWORKS)])
    combined = task.combine(outputs_KN)
    same_form = len(as_tuple(combined)) == len(as_tuple(output)) and all(
        c.shape == o.shape and c.dtype == o.dtype for c, o in zip(as_tuple(combined), as_tuple(output), strict=True)
    )
    one = as_tuple(output)[0]
    require(
        same_form,
        f"combine must turn outputs of shape (K, *{described(one)}) into {described(output)} of the same dtype, "
        f"not {described(combined)} of {as_tuple(combined)[0].dtype}",
    )
    for name, measure in measures(task).items():
        same = measure(task.combine(stack([output] * NETWORKS)), batch)
        require(
            close(same, measure(output, batch), 1e-6),
            f"combine of {NETWORKS} equal outputs must score as one of them ({name} differs)",
        )
        reordered = measure(task.combine(map_tensors(lambda x: x.flip(0), outputs_KN)), batch)
        require(
            close(reordered, measure(combined, batch), 1e-6),
            f"combine must not depend on the order of the networks ({name} differs)",
        )


def check_classes(task: Task, output: Tensors) -> None:
    """Check the predicted class, if there is one: integers that depend only on their sample, also for an ensemble."""
    predicted_N = task.predicted_class(output)
    if predicted_N is None:
        return
    count = len(as_tuple(output)[0])
    require(
        isinstance(predicted_N, Tensor) and predicted_N.dtype == torch.int64 and predicted_N.shape == (count,),
        f"predicted_class must be None, or int64 of shape ({count},)",
    )
    for i in range(count):
        alone = task.predicted_class(select(output, slice(i, i + 1)))
        require(
            alone is not None and torch.equal(alone, predicted_N[i : i + 1]),
            "predicted_class of a sample depends on the other samples of the batch",
        )
    combined = task.predicted_class(as_double(task.combine(stack([output] * NETWORKS))))
    require(
        combined is not None and torch.equal(combined, predicted_N),
        f"an ensemble of {NETWORKS} equal networks has a different predicted_class than one of them",
    )


def check_log_probabilities(task: Task, output: Tensors) -> None:
    """Check the classes' log probabilities, if there are any: they add up to 1 and depend only on their sample."""
    found_NC = task.log_probabilities(output)
    if found_NC is None:
        return
    count = len(as_tuple(output)[0])
    require(
        isinstance(found_NC, Tensor) and found_NC.dim() == 2 and len(found_NC) == count and finite(found_NC),
        f"log_probabilities must be None, or finite and of shape ({count}, classes)",
    )
    total_N = found_NC.exp().sum(1)
    require(
        close(total_N, torch.ones_like(total_N), 1e-4),
        "log_probabilities must be the logarithms of probabilities that add up to 1 for each sample",
    )
    for i in range(count):
        alone = task.log_probabilities(select(output, slice(i, i + 1)))
        require(
            alone is not None and close(alone, found_NC[i : i + 1], 1e-9),
            "log_probabilities of a sample depend on the other samples of the batch",
        )


def check_stored_target(task: Task, batch: Batch) -> None:
    """Check what the overfit store keeps as the label."""
    stored = task.stored_target(batch)
    require(
        isinstance(stored, Tensor) and stored.dim() > 0 and len(stored) == len(batch) and finite(stored),
        f"stored_target must be a finite tensor with {len(batch)} samples in the first axis",
    )
    require(not stored.is_complex(), "stored_target must be real; give the parts of complex numbers an axis")
