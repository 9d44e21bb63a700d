"""Speech separation: the voices of a mixture on one channel; a sample is one recording.

Dims: N recordings, C sources, T samples, K networks of an ensemble, R outputs of the network in training.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.files import path_of
from ocd_core.models.parts.vgg import VGG11Features, load_vgg11_features
from ocd_core.samples import SPLITS, Batch, Condition, Split, SplitName, only
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.speech.audio import read_audio, write_audio
from ocd_core.tasks.speech.params import SpeechData
from ocd_core.tasks.speech.quality import combined, mixture_si_sdr, separation_si_sdr
from ocd_core.tasks.speech.sources import (
    Counts,
    check_heads,
    check_length,
    licence_of,
    list_mixtures,
    read_mixtures,
)
from ocd_core.tasks.speech.spectrograms import GRID, encoded, features_first, pictures, pooled_over_time
from ocd_core.tasks.speech.split import MixtureSplit, write_split

ABOUT = "about.json"
_VGG11 = "vgg11"  # the weights' name in a bundle; what kind of file they are, their content says
_SILENT_DB = -120.0  # the level of a silent source


class SpeechSeparation(Task):
    """Inputs: mixtures (N, T). Outputs and targets: sources (N, C, T), float32 in ±1; outputs in any order and scale.

    The network may also give (N, R, C, T) in training mode, the outputs of R stages, of which the last counts most.
    """

    Data: ClassVar[type[StrictModel]] = SpeechData
    evaluation_batch: ClassVar[int] = 1
    pictures: ClassVar[str | None] = "ocd_core.tasks.speech.pictures:draw"
    data: SpeechData

    def __init__(self, data: StrictModel, model_name: str, model_args: dict[str, Any]) -> None:
        super().__init__(data, model_name, model_args)
        modelled = model_args.get("sources", self.data.sources)
        if modelled != self.data.sources:
            raise UserError(
                f"data.sources is {self.data.sources}, but base.model.args.sources is {modelled}; make them the same"
            )
        self._about: dict[str, Any] | None = None
        self._vgg11_path = None if self.data.vgg11 is None else path_of(self.data.vgg11)

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write the recordings of each split (see `write_split`), and how many files need a remark.

        Returns the source and its licence, if known, the mixtures and minutes of each split, and the counts of silent
        sources, clipped files, and recordings that are shorter than a part of the base's training.

        Raises:
            UserError: the recordings are missing or not as expected.
        """
        data = self.data
        chosen = {
            "train": (data.train_part, data.train_size),
            "val": (data.val_part, data.val_size),
            "test": (data.test_part, data.test_size),
        }
        if len({part for part, _ in chosen.values()}) < len(chosen):
            raise UserError("data.train_part, data.val_part and data.test_part must be three different parts")
        counts, splits = Counts(), {}
        for split in SPLITS:
            mixtures = list_mixtures(data, *chosen[split])
            lengths, exact = check_heads(mixtures, data)
            if split == "train" and data.train_seconds is None and len(set(lengths)) > 1:
                raise UserError("the training recordings differ in length; set data.train_seconds")
            waves = read_mixtures(mixtures, data, counts)
            speakers = [mixture.speakers for mixture in mixtures]
            write_split(dest, split, waves, lengths, data.sources, exact, speakers)
            splits[split] = {"samples": len(lengths), "minutes": sum(lengths) / data.sample_rate / 60}
        about = {
            "silent_sources": counts.silent,
            "clipped_files": counts.clipped,
            "shorter_than_a_training_part": counts.short,
        }
        write_json(dest / ABOUT, about)
        return {"source": data.path, "licence": licence_of(data), **about, "splits": splits}

    def bind(self, prepared: Path) -> None:
        """Read the counts, which results name, and take VGG11's weights from the prepared data if they are there.

        In a bundle they are, and `data.vgg11` is a path on the machine of whoever made it.
        """
        self._about = read_json(prepared / ABOUT)
        if self.data.vgg11 is not None and (prepared / _VGG11).is_file():
            self._vgg11_path = prepared / _VGG11

    def travelling(self, prepared: Path) -> dict[str, Path]:
        """The counts, and VGG11's weights if I(x) is made with them."""
        weights = {} if self._vgg11_path is None else {_VGG11: self._vgg11_path}
        return {ABOUT: prepared / ABOUT, **weights}

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: a file is missing or damaged, or holds another number of sources.
        """
        found = MixtureSplit(prepared, split)
        if found.sources != self.data.sources:
            raise UserError(f"{prepared} holds {found.sources} sources; run the stage prepare again")
        return found

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        """`train_seconds` from a random place of each recording, or of a new mixture of random training sources."""
        assert isinstance(split, MixtureSplit)
        seconds = self.data.train_seconds
        length = max(split.lengths) if seconds is None else round(seconds * self.data.sample_rate)
        if self.data.dynamic_mixing:
            return split.new_mixtures(sample_id, length, seed, epoch)
        return split.parts(sample_id, length, seed, epoch)

    def augmented(self, kind: str) -> "SpeechSeparation | None":
        """See `Task.augmented`; `dynamic_mixing` is the only kind."""
        return self.with_data(dynamic_mixing=True) if kind == "dynamic_mixing" else None

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Minus the mean SI-SDR of the sources under the best assignment, (N,), in dB and the dtype of `output`.

        Silent sources are left out of the mean.
        """
        return -separation_si_sdr(output, target.to(output))

    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """The loss after each of the network's R stages, with weights 1, 2, … R over their sum (Nachmani et al.).

        Raises:
            UserError: smoothing is asked for.
        """
        if output.dim() == 3:
            return super().training_loss(output, target, label_smoothing)
        weight_R = torch.arange(1, output.shape[1] + 1, device=output.device, dtype=output.dtype)
        losses = [
            super(SpeechSeparation, self).training_loss(stage, target, label_smoothing) for stage in output.unbind(1)
        ]
        return (torch.stack(losses, 1) * weight_R).sum(1) / weight_R.sum()

    @property
    def metrics(self) -> Sequence[Metric]:
        """SI-SDRi, the improvement over the mixture, and SI-SDR, in dB."""

        def improvement(output: Tensor, batch: Batch) -> Tensor:
            (mixture_NT,), target = batch.inputs, only(batch.target).to(output)
            return separation_si_sdr(output, target) - mixture_si_sdr(mixture_NT.to(output), target)

        def plain(output: Tensor, target: Tensor) -> Tensor:
            return separation_si_sdr(output, target.to(output))

        return (
            Metric(
                "si_sdri",
                improvement,
                higher_is_better=True,
                sees="batch",
                unit="dB",
                decimals=2,
                about="by how much the SI-SDR of the answers is above that of the mixture itself",
            ),
            Metric(
                "si_sdr",
                plain,
                higher_is_better=True,
                unit="dB",
                decimals=2,
                about="the scale-invariant ratio of signal to distortion, mean over the speakers; 10 dB more is a "
                "tenth of the distortion's power",
            ),
        )

    def combine(self, outputs_KN: Tensor) -> Tensor:
        """The mean over networks after their sources are aligned, see `combined`."""
        return combined(outputs_KN)

    def remarks(self) -> list[str]:
        """The encoder of I(x), dynamic mixing, and what is unusual in the recordings, if the prepared data is bound."""
        bands, stretches = GRID
        encoder = (
            f"averages on a {bands}x{stretches} grid (no VGG11 weights)"
            if self.data.vgg11 is None
            else f"VGG11 features ({Path(self.data.vgg11).name})"
        )
        found = [
            f"I(x): spectrograms of the base's outputs, {encoder}; mean and deviation over time of the layer's input "
            "and activation."
        ]
        if self.data.dynamic_mixing:
            found.append("The base was trained with dynamic mixing.")
        for key, words in {
            "silent_sources": "silent sources, whose SI-SDR is not defined, are left out of every mean",
            "clipped_files": "files are clipped; they are used as they are",
            "shorter_than_a_training_part": "recordings are shorter than data.train_seconds; zeros fill them up",
        }.items():
            if self._about is not None and self._about[key]:
                found.append(f"{self._about[key]} {words}.")
        return found

    @cached_property
    def _vgg11(self) -> VGG11Features | None:
        return None if self._vgg11_path is None else load_vgg11_features(self._vgg11_path)

    def condition(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor, model: nn.Module | None = None
    ) -> Condition:
        """I(x) of recordings of any length.

        i_L and a_L: mean and standard deviation over the recording. f_θ(x): the encoded spectrogram of each separated
        channel, 1,024 bins, side by side.
        """
        spectrograms = pictures(output, batch.inputs[0])
        first = features_first(layer_input, activation, model)
        return Condition(
            pooled_over_time(layer_input, first),
            pooled_over_time(activation, first),
            encoded(spectrograms, self._vgg11),
        )

    def stored_target(self, batch: Batch) -> Tensor:
        """The level of each source in dB of full scale (rms), (N, C); -120 for silence."""
        level = 10 * torch.log10(only(batch.target).square().mean(-1))
        return level.clamp(min=_SILENT_DB)

    def neighbour_features(self, batch: Batch) -> Tensor:
        """The mixture's spectrogram, averaged on a 16x8 grid, (N, 128), since recordings differ in length."""
        (mixture_NT,) = batch.inputs
        return encoded(pictures(mixture_NT[:, None], mixture_NT), None)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """A recording as the model's input, float32 (1, T).

        Raises:
            UserError: it cannot be read, has several channels or another sample rate (see `data.resample`), is too
                short, or is silent.
        """
        wave = read_audio(path, self.data.sample_rate, self.data.resample)
        check_length(path, len(wave))
        if (wave == wave[0]).all():
            raise UserError(f"{path} is silent; there is nothing to separate")
        return (torch.from_numpy(wave)[None],)

    def describe_output(self, output: Tensor) -> dict[str, str | float]:
        """The share of each separated source in the energy of all, in percent: their scale is arbitrary."""
        energy_C = output.double().square().mean(-1)
        share_C = 100 * energy_C / energy_C.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return {f"s{i + 1} energy %": round(float(share), 1) for i, share in enumerate(share_C)}

    def write_output(self, output: Tensor, dest: Path, name: str) -> list[Path]:
        """One wav file a source, `<name>_s1.wav` …; each at its largest amplitude of .9, because its scale is open."""
        found = []
        for i, wave in enumerate(output.double().cpu().numpy()):
            path = dest / f"{name}_s{i + 1}.wav"
            write_audio(path, 0.9 * wave / max(abs(wave).max(), 1e-12), self.data.sample_rate)
            found.append(path)
        return found


TASK = SpeechSeparation
