"""Whether OCD can help a base network: what the probes of the candidate layers say, in words and by fixed thresholds.

For each layer the verdict is

- *likely*, if the predicted Δ lower the validation loss by at least 0.5 % of it, and that is more than chance with
  95 % confidence, corrected for the number of layers (Bonferroni);
- *no gap*, if not, and the bound lowers the validation loss by less than 1 % of it: even Δ found with the label gain
  nothing. (Too few or too long steps can leave the bound above what predicted Δ reach, so these count first.)
- *cannot tell*, if nothing of that is shown: the 95 % interval holds both no gain and one of 2 %, or there is none;
- *unlikely* otherwise: a gain of 2 % is ruled out.

That of the base network is the first of *likely*, *cannot tell*, *unlikely*, *no gap* that one of its layers has. The
thresholds are the same for all tasks.

Dims: M validation samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ocd_core.artifacts import read_json, read_table
from ocd_core.evaluation.statistics import halves, independent, paired_interval
from ocd_core.evaluation.temperature import choose_temperature
from ocd_core.probing.layers import critical, probes_of_table
from ocd_core.probing.probe import Probe
from ocd_core.samples import Split, Tensors, concatenate, groups_of, rows_at_once, select, whole_split
from ocd_core.tasks.base import Task
from ocd_core.terminal import code_text

CONFIDENCE = 0.95  # of intervals
FITTED = 2.0  # a validation loss of so many times the training loss: the base fits training samples much better
VERDICT, PICTURE = "verdict.md", "diagnosis.png"  # files of the artifact

Verdict = Literal["likely", "cannot tell", "unlikely", "no gap"]
_WORDS: Mapping[Verdict, str] = {  # the most promising first
    "likely": "Likely: OCD can help here.",
    "cannot tell": "Cannot tell: the validation samples that were probed are too few to decide.",
    "unlikely": "Unlikely: nothing says that OCD can help here.",
    "no gap": "No gap: OCD has nothing to gain here.",
}


@dataclass(frozen=True)
class Thresholds:
    """What verdicts stand on. gap, change, worth: shares of the validation loss; confidence: that a gain is no chance.

    gap: to the bound; change: of the least gain that is called likely; worth: of a gain that is ruled out if one is
    called unlikely.
    """

    gap: float = 0.01
    change: float = 0.005
    confidence: float = CONFIDENCE
    worth: float = 0.02


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Temperature:
    """A temperature for the base network. value: the best on all of val. loss: the mean on val without it.

    change, low, high: of val's mean loss with temperatures that were chosen on the other half, with its 95 % interval.
    """

    value: float
    loss: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found. probes: best layer first. used: the layer of rank 1. temperature: None without classes."""

    probes: Sequence[Probe]
    used: str
    temperature: Temperature | None
    thresholds: Thresholds = THRESHOLDS

    @classmethod
    def read(cls, folder: Path, used: str) -> "Diagnosis":
        """The diagnosis whose tables lie in a folder.

        Raises:
            UserError: a table is missing or damaged.
        """
        temperature = read_json(folder / "metrics.json").get("temperature")
        probes = probes_of_table(read_table(folder / "layers.tsv"))
        return cls(probes, used, None if temperature is None else Temperature(**temperature))

    @property
    def best(self) -> Probe:
        """The layer in which most is gained, of those with the verdict."""
        return next(probe for probe in self.probes if self.verdict_of(probe) == self.verdict)

    @property
    def verdict(self) -> Verdict:
        """The most promising of the layers' verdicts."""
        return min((self.verdict_of(probe) for probe in self.probes), key=list(_WORDS).index)

    def verdict_of(self, probe: Probe) -> Verdict:
        """The verdict of one layer."""
        scale, limits = abs(probe.val_loss), self.thresholds
        quantile = critical(probe.val_groups, len(self.probes), limits.confidence)
        if probe.z <= -quantile and -probe.change >= limits.change * scale:
            return "likely"
        if probe.val_loss - probe.bound < limits.gap * scale:
            return "no gap"
        if probe.val_groups < 2:  # no interval
            return "cannot tell"
        return "cannot tell" if -probe.low > limits.worth * scale else "unlikely"

    def metrics(self) -> dict[str, Any]:
        """Plain numbers: the verdict, the best layer's figures, and the verdict of each layer."""
        best = asdict(self.best)
        temperature = {} if self.temperature is None else {"temperature": vars(self.temperature)}
        layers = {probe.layer: self.verdict_of(probe) for probe in self.probes}
        return {"verdict": self.verdict, **best, "gap_closed": gap_closed(self.best), **temperature, "layers": layers}

    def table(self) -> list[dict[str, Any]]:
        """One row per layer, best first."""
        return [
            {
                "layer": probe.layer,
                "verdict": self.verdict_of(probe),
                "relative_change": relative(probe.val_loss, probe.change),
                "relative_low": relative(probe.val_loss, probe.low),
                "relative_high": relative(probe.val_loss, probe.high),
                "gap_closed": gap_closed(probe),
                **{name: value for name, value in asdict(probe).items() if name != "layer"},
            }
            for probe in self.probes
        ]


def relative(loss: float, change: float) -> float:
    """A change of a loss as a share of it; 0 if the loss is 0."""
    return change / abs(loss) if loss else 0.0


def gap_closed(probe: Probe) -> float | None:
    """The share of the way from the base to the bound on val that the predicted Δ go; None without a gap."""
    gap = probe.val_loss - probe.bound
    return -probe.change / gap if gap > 0 else None


def _closed(probe: Probe) -> str | None:
    """`gap_closed` as text; beyond the bound no share means much."""
    share = gap_closed(probe)
    return None if share is None else f"{round(100 * share)} %" if share <= 1 else "more than all"


def verdict_text(diagnosis: Diagnosis) -> str:
    """The diagnosis in Markdown: the verdict in bold, what it stands on, and a table of the layers."""
    best, found = diagnosis.best, diagnosis.probes
    closed = _closed(best)
    share = "" if closed is None else f", {closed} of the way to the bound ({best.bound:.4g})"
    among = f"the best of {len(found)} layers that were probed" if len(found) > 1 else "the layer that was probed"
    groups = f" of {best.val_groups} groups" if best.val_groups < best.val_samples else ""
    paragraphs = [
        f"**{_WORDS[diagnosis.verdict]}**",
        f"In `{code_text(best.layer)}`, {among}, Δ that are predicted from what the base network sees in a sample "
        f"change the validation loss of {best.val_loss:.4g} by {_percent(best, best.change)} (95 % interval "
        f"{_percent(best, best.low)} to {_percent(best, best.high)}){share}. The predictions learned from the Δ of "
        f"{best.samples} training samples and are judged on {best.val_samples} validation samples{groups}. Whether a "
        "kernel, a network, or one that also learned from the loss (tuned) predicts, and by which factor Δ is "
        f"multiplied, is chosen on other samples than are judged (on all: {_choice(best)}). Between predicted and real "
        f"Δ, R² is {best.r2:z.2f} and the mean cosine {best.cosine:z.2f} with the kernel, {best.network_r2:z.2f} and "
        f"{best.network_cosine:z.2f} with the network before tuning.",
        _fitted(best),
        *_of_temperature(diagnosis),
        *_of_used(diagnosis),
        _layers(diagnosis),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _choice(probe: Probe) -> str:
    return f"{probe.regression} × {probe.gain:g}" if probe.gain else "none of them"


def _percent(probe: Probe, change: float) -> str:
    return percent(probe.val_loss, change)


def percent(loss: float, change: float) -> str:
    """A change as a percentage of a loss."""
    return f"{100 * relative(loss, change):+.1f} %"


def _fitted(best: Probe) -> str:
    """Whether the base fits its training samples better than others."""
    text = (
        f"The base network's mean loss is {best.loss:.4g} on training samples and {best.val_loss:.4g} on validation "
        f"samples; the median norm of Δ is {best.rho:.3g} and {best.val_rho:.3g}."
    )
    if best.val_loss > FITTED * best.loss > 0:
        text += (
            " It fits its training samples much better than new ones, so the Δ of the former say little about those of "
            "the latter: stop its training earlier, or overfit samples that it has not been trained on."
        )
    return text


def _of_temperature(diagnosis: Diagnosis) -> list[str]:
    found = diagnosis.temperature
    if found is None:
        return []
    change, low, high = (percent(found.loss, x) for x in (found.change, found.low, found.high))
    text = (
        f"A temperature of {found.value:.2f} for the base network alone changes the mean loss of all validation "
        f"samples, {found.loss:.4g}, by {change} (95 % interval {low} to {high})."
    )
    gain = relative(diagnosis.best.val_loss, diagnosis.best.change)
    if found.high < 0 and relative(found.loss, found.change) < gain / 2:
        text += " Much of a gain could be had in this way: compare the table's columns with temperatures."
    return [text]


def _of_used(diagnosis: Diagnosis) -> list[str]:
    """Whether the layer that moves is the best one."""
    own = next((probe for probe in diagnosis.probes if probe.layer == diagnosis.used), None)
    if own is None:
        return [f"The layer of rank 1, `{code_text(diagnosis.used)}`, was not probed."]
    if own is diagnosis.best:
        return []
    return [
        f"The layer of rank 1 is `{code_text(own.layer)}`, for which the verdict is *{diagnosis.verdict_of(own)}* "
        f"({_percent(own, own.change)}). To move the best one, set `layer.select` to "
        f"`{code_text(diagnosis.best.layer)}`, or to `validated`."
    ]


def _layers(diagnosis: Diagnosis) -> str:
    """The table, best layer first."""
    head = "| layer | verdict | change | 95 % interval | of the gap | R², kernel | R², network | chosen | bound |"
    rows = [
        f"| `{code_text(p.layer)}` | {diagnosis.verdict_of(p)} | {_percent(p, p.change)} | {_percent(p, p.low)} to "
        f"{_percent(p, p.high)} | {_closed(p) or '–'} | "
        f"{p.r2:z.2f} | {p.network_r2:z.2f} | {_choice(p)} | {p.bound:.4g} |"
        for p in diagnosis.probes
    ]
    of_several = f", corrected for {len(rows)} layers (the intervals are not)" if len(rows) > 1 else ""
    legend = (
        f"verdict: with {100 * diagnosis.thresholds.confidence:.0f} % confidence{of_several}. change: of the mean "
        "validation loss under predicted Δ; less is better. of the gap: the share of the way from base to bound "
        "(the loss after overfitting each validation sample with its own label). R²: of predicted Δ; 1 is exact, 0 no "
        "better than the mean Δ. chosen: which prediction, times which factor."
    )
    return "\n".join([head, "| --- | --- |" + " ---: |" * 7, *rows, "", legend])


@torch.no_grad()
def temperature_of(network: nn.Module, task: Task, val: Split, seed: int) -> Temperature | None:
    """What a temperature gains on validation; None without classes, or with a single sample or group."""
    of_split = groups_of(val)
    groups = None if of_split is None else of_split.numpy()
    if independent(len(val), groups) < 2:
        return None
    outputs: list[Tensors] = []
    targets: list[Tensors] = []
    network.eval()
    for rows in torch.split(whole_split(val), rows_at_once(val, task.evaluation_batch)):
        batch = val.batch(rows)
        outputs.append(network(*batch.inputs))
        targets.append(batch.target)
        if task.log_probabilities(outputs[0]) is None:
            return None
    output, target = concatenate(outputs), concatenate(targets)
    half_M = torch.from_numpy(halves(len(val), groups, seed, "halves of a temperature"))
    changed_M = torch.zeros(len(val), dtype=torch.float64)
    for half in (0, 1):
        other, own = half_M != half, half_M == half
        value = choose_temperature(task, [select(output, other)], [select(target, other)])
        changed_M[own] = _loss(task, select(output, own), select(target, own), value)
    loss_M = task.loss(output, target).double()
    low, high = paired_interval(changed_M.numpy(), loss_M.numpy(), groups)
    value = choose_temperature(task, [output], [target])
    return Temperature(value, float(loss_M.mean()), float((changed_M - loss_M).mean()), low, high)


def _loss(task: Task, output: Tensors, target: Tensors, temperature: float) -> Tensor:
    return task.loss(task.tempered(output, temperature), target).double()
