"""What domains share whose outputs are scores of classes: loss, metrics, ensembles, words.

Dims: N samples, C classes.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.tasks.base import Task
from ocd_core.tasks.metric import Metric

CALIBRATION_BINS = 15  # as in Guo et al. (2017)


class Classification(Task):
    """A task with one class per sample. Outputs: logits (N, C). Targets: int64 (N,)."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of each sample in nats, (N,), in the dtype of `output`."""
        return F.cross_entropy(output, target, reduction="none")

    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Cross entropy with (1 - s) · the label + s · all classes equally, for a smoothing of s, (N,)."""
        return F.cross_entropy(output, target, reduction="none", label_smoothing=label_smoothing)

    @property
    def metrics(self) -> Sequence[Metric]:
        """See `classification_metrics`."""
        return classification_metrics(self.loss)

    def combine(self, outputs_KN: Tensor) -> Tensor:
        """The logarithm of the K networks' mean probabilities, (N, C): logits of the ensemble."""
        return mixture(outputs_KN)

    def predicted_class(self, output: Tensor) -> Tensor:
        """The most probable class, int64 (N,)."""
        return output.argmax(-1)

    def log_probabilities(self, output: Tensor) -> Tensor:
        """Log-softmax of the logits, (N, C)."""
        return F.log_softmax(output, -1)

    def describe_output(self, output: Tensor) -> dict[str, str | float]:
        """The most probable class of one sample and its probability."""
        best, probability = most_probable(output)
        return {"class": best, "probability": probability}


def most_probable(output: Tensor) -> tuple[int, float]:
    """The most probable class of one sample and its probability, from its logits."""
    probabilities = output.flatten().double().softmax(0)
    best = int(probabilities.argmax())
    return best, float(probabilities[best])


def classification_metrics(cross_entropy: Callable[[Tensor, Tensor], Tensor]) -> tuple[Metric, ...]:
    """Cross entropy (nats), accuracy (percent), Brier score, calibration error, AUROC of being wrong.

    Outputs are logits or log-probabilities, float (N, C), targets the classes, int64 (N,).

    Args:
        cross_entropy: the task's loss of each sample, (N,).
    """
    return (
        Metric(
            "cross_entropy",
            cross_entropy,
            higher_is_better=False,
            about="minus the logarithm of the probability given to the right class, in nats; 0 at best",
        ),
        Metric(
            "accuracy",
            hit,
            higher_is_better=True,
            unit="%",
            decimals=2,
            test="mcnemar",
            about="the share of samples whose most probable class is right",
        ),
        Metric(
            "brier",
            brier,
            higher_is_better=False,
            about="the squared error of the probabilities, summed over classes (Brier, 1950), from 0 at best to 2",
        ),
        Metric(
            "ece",
            over_split=calibration_error,
            reduce=sureness,
            sample_columns=("confidence",),
            higher_is_better=False,
            about=(
                "the expected calibration error: how far the probability of the predicted class is from the share that "
                f"is right, in {CALIBRATION_BINS} bins; from 0 at best to 1"
            ),
        ),
        Metric(
            "auroc_wrong",
            over_split=auroc_of_being_wrong,
            reduce=sureness,
            higher_is_better=True,
            decimals=3,
            about="how well the probability of the predicted class tells wrong answers from right ones: 0.5 is a "
            "guess, 1 perfect (area under the ROC curve)",
        ),
    )


def mixture(outputs_KN: Tensor) -> Tensor:
    """The logarithm of K networks' mean probabilities, (N, C), from their logits (K, N, C): an ensemble's logits."""
    return outputs_KN.log_softmax(-1).logsumexp(0) - math.log(len(outputs_KN))


def hit(output: Tensor, target: Tensor) -> Tensor:
    """100 if the class is right, else 0, (N,), in the dtype of `output`: its mean is the accuracy in percent."""
    return (output.argmax(-1) == target).to(output.dtype) * 100


def brier(output: Tensor, target: Tensor) -> Tensor:
    """Σ_c (p_c − 1[c = target])², (N,) (Brier, 1950), between 0 and 2."""
    p_NC = output.softmax(-1)
    return p_NC.square().sum(-1) - 2 * p_NC.gather(-1, target[:, None])[:, 0] + 1


def sureness(output: Tensor, target: Tensor) -> Tensor:
    """The largest probability of each sample, and 1 if its class is right, else 0; (N, 2) in the dtype of `output`."""
    confidence_N, class_N = output.softmax(-1).max(-1)
    return torch.stack([confidence_N, (class_N == target).to(output.dtype)], 1)


def calibration_error(sureness_N2: Tensor) -> float:
    """The expected calibration error: Σ_b (n_b / N) |accuracy − confidence| over bins of the confidence.

    There are `CALIBRATION_BINS` bins of equal width (Naeini et al., 2015).
    """
    from torchmetrics.functional.classification import binary_calibration_error

    confidence_N, right_N = sureness_N2.T.contiguous()
    found = binary_calibration_error(
        confidence_N, right_N.to(torch.int64), n_bins=CALIBRATION_BINS, norm="l1", validate_args=False
    )
    return float(found)


def auroc_of_being_wrong(sureness_N2: Tensor) -> float:
    """The area under the ROC curve of 1 − max_c p_c as a score of being wrong: .5 is a guess, 1 perfect.

    Raises:
        ValueError: every answer is right, or every one wrong, so that there is no curve.
    """
    from torchmetrics.functional.classification import binary_auroc

    confidence_N, right_N = sureness_N2.unbind(1)
    wrong_N = right_N == 0
    if bool(wrong_N.all()) or not bool(wrong_N.any()):
        raise ValueError("the answers are all right or all wrong")
    return float(binary_auroc(1 - confidence_N, wrong_N.to(torch.int64), validate_args=False))


def matthews() -> Metric:
    """Matthews' correlation coefficient in percent, over all classes (Gorodkin, 2004): 0 is a guess, 100 perfect."""
    return Metric(
        "mcc",
        over_split=_correlation,
        reduce=_classes,
        higher_is_better=True,
        unit="%",
        decimals=2,
        about="Matthews' correlation coefficient of predicted and right classes: 0 is a guess, 100 perfect",
    )


def _classes(output: Tensor, target: Tensor) -> Tensor:
    """The predicted and the right class of each sample, int64 (N, 2)."""
    return torch.stack([output.argmax(-1), target], 1)


def _correlation(classes_N2: Tensor) -> float:
    """Raise ValueError if there is one class alone, predicted or right: the denominator is 0."""
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    predicted_N, target_N = classes_N2.T.contiguous()
    if len(predicted_N.unique()) < 2 or len(target_N.unique()) < 2:
        raise ValueError("there is one class alone")
    count = int(classes_N2.max()) + 1
    return 100 * float(multiclass_matthews_corrcoef(predicted_N, target_N, num_classes=count, validate_args=False))
