"""SI-SDR of separated sources, whose order is the network's own: the best assignment is found first.

SI-SDR compares directions: both signals have their mean removed, and neither their scale nor their sign counts. It is
not defined for a silent source, which is left out of every mean here.

Dims: N recordings, C sources (D of them estimated), T samples.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# a ratio of 1e-8 or 1e8, where SI-SDR ends: -80 dB for an estimate without anything of its source, 80 dB for a perfect
# one (the authors' code ends at the same -80 dB)
_EPS = 1e-8


def si_sdr(estimate: Tensor, source: Tensor) -> Tensor:
    """SI-SDR in dB of signals along the last axis, (..., T) to (...); within ±80 dB, differentiable.

    10 log10(|a s|² / |e − a s|²) with a = ⟨e, s⟩ / |s|², after the means are removed (Le Roux et al., 2019).
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    source = source - source.mean(-1, keepdim=True)
    tiny = torch.finfo(estimate.dtype).tiny
    scale = (estimate * source).sum(-1, keepdim=True) / source.square().sum(-1, keepdim=True).clamp(min=tiny)
    part = scale * source
    return _decibels(part.square().sum(-1), (estimate - part).square().sum(-1))


def pairwise_si_sdr(estimate_NDT: Tensor, source_NCT: Tensor) -> Tensor:
    """SI-SDR of every estimate against every source, (N, D, C), from their inner products; without a gradient.

    It is exact enough to choose an assignment: in float32, the noise of very good estimates is rounded.
    """
    with torch.no_grad():
        estimate = (estimate_NDT - estimate_NDT.mean(-1, keepdim=True)).double()
        source = (source_NCT - source_NCT.mean(-1, keepdim=True)).double()
        tiny = torch.finfo(torch.float64).tiny
        inner_NDC = estimate @ source.transpose(1, 2)
        part_NDC = inner_NDC.square() / source.square().sum(-1)[:, None].clamp(min=tiny)
        whole_ND1 = estimate.square().sum(-1, keepdim=True)
        return _decibels(part_NDC, (whole_ND1 - part_NDC).clamp(min=0))


def _decibels(part: Tensor, noise: Tensor) -> Tensor:
    tiny = torch.finfo(part.dtype).tiny ** 0.5  # an estimate of zeros has neither; the gradient divides by its square
    return 10 * torch.log10(part / (noise + _EPS * part + tiny) + _EPS)


def sounding(source_NCT: Tensor) -> Tensor:
    """Which sources are not silent (constant), bool (N, C)."""
    return (source_NCT != source_NCT[..., :1]).any(-1)


def best_assignment(score_NDC: Tensor) -> Tensor:
    """For each source the estimate that is assigned to it, int64 (N, C): the highest sum, by the Hungarian algorithm.

    Every estimate is assigned at most once; D is at least C.
    """
    chosen = []
    for score_DC in score_NDC.detach().cpu().numpy():
        rows, columns = linear_sum_assignment(score_DC, maximize=True)
        chosen.append(torch.from_numpy(rows[columns.argsort()]))
    return torch.stack(chosen).to(score_NDC.device)


def assigned(estimate_NDT: Tensor, source_NCT: Tensor) -> Tensor:
    """The estimates in the order of the sources, (N, C, T): the assignment with the highest mean SI-SDR.

    A silent source gets what the others leave.
    """
    score_NDC = pairwise_si_sdr(estimate_NDT, source_NCT) * sounding(source_NCT)[:, None]
    chosen_NC = best_assignment(score_NDC)
    return estimate_NDT.gather(1, chosen_NC[..., None].expand(-1, -1, estimate_NDT.shape[-1]))


def mean_over_sounding(value_NC: Tensor, source_NCT: Tensor) -> Tensor:
    """The mean over the sources that are not silent, (N,); 0 if all are."""
    mask_NC = sounding(source_NCT)
    return torch.where(mask_NC, value_NC, 0).sum(1) / mask_NC.sum(1).clamp(min=1)


def separation_si_sdr(estimate_NDT: Tensor, source_NCT: Tensor) -> Tensor:
    """The mean SI-SDR of the sources under the best assignment, (N,), in dB; differentiable in the estimates."""
    return mean_over_sounding(si_sdr(assigned(estimate_NDT, source_NCT), source_NCT), source_NCT)


def mixture_si_sdr(mixture_NT: Tensor, source_NCT: Tensor) -> Tensor:
    """The mean SI-SDR of the mixture as an estimate of each of its sources, (N,), in dB."""
    return mean_over_sounding(si_sdr(mixture_NT[:, None], source_NCT), source_NCT)


def combined(estimate_KNCT: Tensor) -> Tensor:
    """The mean of K networks' estimates, (N, C, T), after their sources are aligned; it does not depend on their order.

    Networks may give the sources in different orders, and SI-SDR leaves scale and sign open. So the estimates of each
    network are assigned to those of one of them, the one that resembles all others most; they then have the sign of
    that, and all have the same energy, the mean over the networks.
    """
    first_NCT = _most_alike(estimate_KNCT)
    total, level = torch.zeros_like(first_NCT), first_NCT.new_zeros(*first_NCT.shape[:2], 1)
    for estimate_NCT in estimate_KNCT:
        ordered_NCT = assigned(estimate_NCT, first_NCT)
        sign = torch.where((ordered_NCT * first_NCT).sum(-1, keepdim=True) < 0, -1, 1)
        norm = torch.linalg.vector_norm(ordered_NCT, dim=-1, keepdim=True)
        total += sign * ordered_NCT / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        level += norm
    return total * level / len(estimate_KNCT) ** 2


def _most_alike(estimate_KNCT: Tensor) -> Tensor:
    """For each recording the network with the highest mean SI-SDR to the others, (N, C, T)."""
    count = len(estimate_KNCT)
    alike_KN = estimate_KNCT.new_zeros(estimate_KNCT.shape[:2])
    for k in range(count):
        for other in range(k):
            # SI-SDR is symmetric: it depends only on the angle between two signals
            score_N = separation_si_sdr(estimate_KNCT[other], estimate_KNCT[k])
            alike_KN[k] += score_N
            alike_KN[other] += score_N
    return estimate_KNCT[alike_KN.argmax(0), torch.arange(estimate_KNCT.shape[1], device=alike_KN.device)]
