"""The network against the authors' formulas in plain loops, its sizes, and its cut."""

import math

import pytest
import torch
import torch.nn.functional as F

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.gated_lstm import GatedLSTM, MulCatBlock
from ocd_core.network.cut import CutModel

SMALL = {"sources": 3, "features": 8, "hidden": 5, "pairs": 2, "kernel": 4, "chunk": 6, "frame": 4}


def network(**changes: object) -> GatedLSTM:
    torch.manual_seed(0)
    return GatedLSTM(**{**SMALL, **changes}).double().eval()


def mulcat(block: MulCatBlock, sequence_LF: torch.Tensor) -> torch.Tensor:
    """A MulCat block on one sequence (Nachmani et al., Eq. 5): P [ (W1 m1) ⊙ (W2 m2), v ]."""

    def lstm(module: torch.nn.LSTM) -> torch.Tensor:
        plain = torch.nn.LSTM(module.input_size, module.hidden_size, batch_first=True, bidirectional=True).double()
        plain.load_state_dict(module.state_dict())
        return plain(sequence_LF[None])[0][0]

    gated = block.rnn_proj(lstm(block.rnn)) * block.gate_rnn_proj(lstm(block.gate_rnn))
    return block.block_projection(torch.cat([gated, sequence_LF], 1))


def plain_forward(model: GatedLSTM, mixture_T: torch.Tensor, sources: int, chunk: int, hop: int, frame: int):
    """One recording, chunk by chunk and frame by frame; the waveforms after each pair."""
    weight = model.encoder.conv.weight[:, 0]
    windows = [mixture_T[at : at + 2 * hop] for at in range(0, len(mixture_T) - 2 * hop + 1, hop)]
    frames = torch.stack([torch.relu(weight @ window) for window in windows])
    half, count, features = chunk // 2, len(frames), frames.shape[1]
    padded = torch.zeros(half + count + 2 * chunk + half, features, dtype=frames.dtype)
    padded[half : half + count] = frames
    # chunks start every half chunk until each frame is in two of them
    chunks = [padded[at : at + chunk] for at in range(0, half + count + chunk, half)]
    rest = chunk - (half + count) % chunk
    chunks = chunks[: 2 * (count + rest) // chunk + 1]
    model_ = model.separator.rnn_model
    found = []
    for rows, cols in zip(model_.rows_grnn, model_.cols_grnn, strict=True):
        chunks = [c + mulcat(rows, c) for c in chunks]
        across = [mulcat(cols, torch.stack([c[k] for c in chunks])) for k in range(chunk)]
        chunks = [c + torch.stack([across[k][s] for k in range(chunk)]) for s, c in enumerate(chunks)]
        prelu, conv = model_.output
        merged = torch.zeros(len(padded), sources * features, dtype=frames.dtype)
        for s, c in enumerate(chunks):
            out = F.prelu(c, prelu.weight) @ conv.weight[:, :, 0, 0].T + conv.bias
            merged[s * half : s * half + chunk] += out
        waves = torch.zeros(sources, len(mixture_T) + frame, dtype=frames.dtype)
        group = features // frame
        for at, values in enumerate(merged[half : half + count]):
            pieces = values.view(sources, frame, group).mean(2)
            waves[:, at * hop : at * hop + frame] += pieces
        heard = (count - 1) * hop + frame
        waves[:, heard:] = 0
        found.append(waves[:, : len(mixture_T)])
    return found


@pytest.mark.parametrize("length", [24, 25, 39, 61])
@pytest.mark.parametrize("frame", [2, 4, 8])
def test_forward_is_the_authors_formulas(length: int, frame: int) -> None:
    model = network(frame=frame)
    mixture = torch.randn(2, length, dtype=torch.float64)
    expected = [plain_forward(model, one, 3, 6, 2, frame) for one in mixture]
    found = model(mixture)
    assert found.shape == (2, 3, length)
    torch.testing.assert_close(found, torch.stack([stages[-1] for stages in expected]))
    stages = model.train()(mixture)
    assert stages.shape == (2, 2, 3, length)
    torch.testing.assert_close(stages, torch.stack([torch.stack(each) for each in expected]))


def test_default_is_the_paper_s_network() -> None:
    """Six pairs of 128 features, windows of 8 samples, chunks of sqrt(2 · frames) for 4 seconds at 8 kHz."""
    with torch.device("meta"):
        model = GatedLSTM()
    features = hidden = 128
    lstm = 2 * (4 * hidden * (features + hidden) + 2 * 4 * hidden)
    block = 2 * lstm + 2 * (2 * hidden * features + features) + 2 * features * features + features
    output = 1 + features * 5 * features + 5 * features
    assert sum(p.numel() for p in model.parameters()) == 8 * features + 12 * block + output
    assert model.chunks.chunk == math.floor(math.sqrt(2 * 8000 * 4 / 4))
    assert model.decoder.frame == 16
    assert model.decoder.hop == 4
    names = dict(model.named_parameters())
    for name in (
        "encoder.conv.weight",
        "separator.rnn_model.rows_grnn.0.rnn.weight_ih_l0_reverse",
        "separator.rnn_model.cols_grnn.5.gate_rnn_proj.bias",
        "separator.rnn_model.cols_grnn.5.block_projection.weight",
        "separator.rnn_model.output.1.weight",
    ):
        assert name in names
    assert names["separator.rnn_model.cols_grnn.5.block_projection.weight"].shape == (128, 256)


def test_normalisation_is_over_the_whole_recording() -> None:
    model = network(normalise=True)
    norm = model.separator.rnn_model.rows_normalization[0]
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    flat = x.flatten(1)
    wanted = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, correction=0, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(norm(x), wanted.view_as(x))


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        "separator.rnn_model.cols_grnn.1.block_projection",
        "separator.rnn_model.rows_grnn.0.gate_rnn_proj",
        "separator.rnn_model.output.1",
        "encoder.conv",
    ],
)
def test_it_is_traced_and_cut(layer: str, normalise: bool) -> None:
    model = network(normalise=normalise).float()
    cut_model = CutModel(model, layer)
    mixture = torch.randn(3, 50)
    cut = cut_model.prefix((mixture,))
    assert cut_model.traced
    torch.testing.assert_close(cut_model.forward(cut)[1].float(), model(mixture), rtol=1e-4, atol=1e-5)
    moved = network(normalise=normalise).float()
    delta = 0.1 * torch.randn(cut_model.weight_OI.shape)
    weight = moved.get_submodule(layer).weight
    with torch.no_grad():
        weight += delta.view_as(weight)
    output = cut_model.forward(cut, delta.expand(3, *delta.shape))[1]
    torch.testing.assert_close(output.float(), moved(mixture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": 0}, "must be at least 1"),
        ({"kernel": 5}, "even numbers"),
        ({"chunk": 7}, "even numbers"),
        ({"frame": 3}, "must divide features"),
        ({"frame": 1}, "at least half of kernel"),
    ],
)
def test_bad_sizes(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model("gated_lstm", {**SMALL, **changes})
