"""Gated-LSTM with MulCat blocks (Nachmani et al., 2020), which separates a known number of voices.

Its parameters have the names of the authors' code, so that `separator.rnn_model.cols_grnn.5.block_projection` is the
projection of the last MulCat block.

Dims: N recordings, T samples of a recording, L frames, S chunks, K frames of a chunk, F features, C sources,
R pairs of MulCat blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChunkLSTM(nn.LSTM):
    """A bidirectional LSTM along the frames of each chunk, (N, S, K, F) to (N, S, K, 2 · hidden)."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, batch_first=True, bidirectional=True)

    def forward(self, chunk_NSKF: Tensor) -> Tensor:  # type: ignore[override]
        """Every chunk is a sequence of its own."""
        out, _ = super().forward(chunk_NSKF.flatten(0, 1))
        return out.view(*chunk_NSKF.shape[:-1], -1)


class MulCatBlock(nn.Module):
    """Two LSTMs of which one gates the other by multiplication; the product, concatenated with the input, is projected.

    (N, S, K, F) to the same shape.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.rnn = ChunkLSTM(features, hidden)
        self.rnn_proj = nn.Linear(2 * hidden, features)
        self.gate_rnn = ChunkLSTM(features, hidden)
        self.gate_rnn_proj = nn.Linear(2 * hidden, features)
        self.block_projection = nn.Linear(2 * features, features)

    def forward(self, chunk_NSKF: Tensor) -> Tensor:
        """Features of chunks, without the skip connection."""
        gated = self.rnn_proj(self.rnn(chunk_NSKF)) * self.gate_rnn_proj(self.gate_rnn(chunk_NSKF))
        projected: Tensor = self.block_projection(torch.cat([gated, chunk_NSKF], -1))
        return projected


class Norm(nn.GroupNorm):
    """Normalisation over all values of a recording, with the features in the last axis."""

    def __init__(self, features: int) -> None:
        super().__init__(1, features, eps=1e-8)

    def forward(self, chunk_NSKF: Tensor) -> Tensor:
        """(N, S, K, F) to the same shape."""
        return super().forward(chunk_NSKF.movedim(-1, 1)).movedim(1, -1)


class DPMulCat(nn.Module):
    """Pairs of MulCat blocks: the first of a pair within each chunk, the second across chunks; then the output layer.

    (N, S, K, F) to the features of all sources after each pair, R tensors (N, C · F, S, K).
    """

    def __init__(self, features: int, hidden: int, sources: int, pairs: int, normalise: bool) -> None:
        super().__init__()
        self.rows_grnn = nn.ModuleList(MulCatBlock(features, hidden) for _ in range(pairs))
        self.cols_grnn = nn.ModuleList(MulCatBlock(features, hidden) for _ in range(pairs))
        norms = [Norm(features) if normalise else nn.Identity() for _ in range(2 * pairs)]
        self.rows_normalization = nn.ModuleList(norms[::2])
        self.cols_normalization = nn.ModuleList(norms[1::2])
        self.output = nn.Sequential(nn.PReLU(), nn.Conv2d(features, features * sources, 1))

    def forward(self, chunk_NSKF: Tensor) -> list[Tensor]:
        """In eval mode only after the last pair."""
        found = []
        last = len(self.rows_grnn) - 1
        for i, (rows, cols) in enumerate(zip(self.rows_grnn, self.cols_grnn, strict=True)):
            chunk_NSKF = chunk_NSKF + self.rows_normalization[i](rows(chunk_NSKF))
            across = cols(chunk_NSKF.transpose(1, 2)).transpose(1, 2)
            chunk_NSKF = chunk_NSKF + self.cols_normalization[i](across)
            if self.training or i == last:
                found.append(self.output(chunk_NSKF.permute(0, 3, 1, 2)))
        return found


class Encoder(nn.Module):
    """Overlapping windows of the waveform to non-negative features, (N, T) to (N, F, L)."""

    def __init__(self, features: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, features, kernel, stride=kernel // 2, bias=False)

    def forward(self, mixture_NT: Tensor) -> Tensor:
        """Half of a window is the step to the next."""
        return F.relu(self.conv(mixture_NT.unsqueeze(1)))


class Chunks(nn.Module):
    """Frames to chunks of K frames that overlap by half, (N, F, L) to (N, S, K, F); zeros fill both ends."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk

    def forward(self, frame_NFL: Tensor) -> Tensor:
        """Every frame is in two chunks."""
        half = self.chunk // 2
        rest = self.chunk - (half + frame_NFL.shape[-1]) % self.chunk
        return F.pad(frame_NFL, (half, half + rest)).unfold(-1, self.chunk, half).permute(0, 2, 3, 1)


class Decoder(nn.Module):
    """Features of each source in overlapping chunks to waveforms, (N, C · F, S, K) to (N, C, T).

    Both overlaps are added: of the chunks, which gives features of frames, and of the frames' samples, which are means
    of equal groups of the features.
    """

    def __init__(self, sources: int, frame: int, hop: int) -> None:
        super().__init__()
        self.sources, self.frame, self.hop = sources, frame, hop

    def forward(self, chunk_NGSK: Tensor, mixture_NT: Tensor) -> Tensor:
        """Waveforms as long as the mixture; samples after the last whole window are 0."""
        count, length = mixture_NT.shape
        half = chunk_NGSK.shape[-1] // 2
        even, odd = chunk_NGSK[:, :, ::2].flatten(2), chunk_NGSK[:, :, 1::2].flatten(2)
        frames = length // self.hop - 1
        feature_NGL = (even[..., half:] + odd[..., :-half])[..., :frames]
        wave = feature_NGL.reshape(count * self.sources, self.frame, -1, frames).mean(2)
        heard = (frames - 1) * self.hop + self.frame
        added = F.fold(wave, (1, heard), (1, self.frame), stride=(1, self.hop))
        return F.pad(added.view(count, self.sources, heard), (0, length - heard))


class Separator(nn.Module):
    """Only a name in front of the blocks' parameters."""

    def __init__(self, rnn_model: DPMulCat) -> None:
        super().__init__()
        self.rnn_model = rnn_model

    def forward(self, chunk_NSKF: Tensor) -> list[Tensor]:
        """See `DPMulCat`."""
        found: list[Tensor] = self.rnn_model(chunk_NSKF)
        return found


class GatedLSTM(nn.Module):
    """Encoder, chunks, pairs of MulCat blocks with one output layer for all, decoder.

    Input: (N, T) waveforms, T at least `kernel`. Output: (N, C, T) waveforms of the sources, in an order of the
    network's own; in training mode (N, R, C, T), the waveforms after each pair.

    The default sizes are those of the authors' code for recordings at 8 kHz and training on 4 seconds, for which a
    chunk has √(2 · frames) = 126 frames.

    Args:
        sources: C. features: F. hidden: units of an LSTM in each direction. pairs: R.
        kernel: samples of a window of the encoder, an even number; the step to the next window is half of it.
        chunk: K, an even number.
        frame: samples that the decoder makes of a frame, a divisor of `features` and at least kernel / 2; None:
            features / kernel, as in the authors' code.
        normalise: whether the output of each block is normalised.
    """

    fx_leaves = (ChunkLSTM, Norm, Encoder, Chunks, Decoder)

    def __init__(
        self,
        sources: int = 5,
        features: int = 128,
        hidden: int = 128,
        pairs: int = 6,
        kernel: int = 8,
        chunk: int = 126,
        frame: int | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if min(sources, features, hidden, pairs) < 1:
            raise ValueError("sources, features, hidden and pairs must be at least 1")
        if min(kernel, chunk) < 2 or kernel % 2 or chunk % 2:
            raise ValueError(f"kernel ({kernel}) and chunk ({chunk}) must be even numbers from 2 on")
        frame = features // kernel if frame is None else frame
        if frame < kernel // 2 or features % frame:
            raise ValueError(
                f"frame ({frame}) must divide features ({features}) and be at least half of kernel ({kernel})"
            )
        self.kernel = kernel
        self.encoder = Encoder(features, kernel)
        self.chunks = Chunks(chunk)
        self.separator = Separator(DPMulCat(features, hidden, sources, pairs, normalise))
        self.decoder = Decoder(sources, frame, kernel // 2)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, mixture_NT: Tensor) -> Tensor:
        """Waveforms of the sources."""
        found = self.separator(self.chunks(self.encoder(mixture_NT)))
        waves = [self.decoder(each, mixture_NT) for each in found]
        return torch.stack(waves, 1) if self.training else waves[-1]


MODEL = GatedLSTM
