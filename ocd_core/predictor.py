"""Prediction with drawn weights (Alg. 2): Δ is drawn for an unseen x, and the network answers with θ + Δ."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ocd_core._version import __version__
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.layout import check_bundle
from ocd_core.bundles.params import read_bundle_params
from ocd_core.config import Params, parse_params, trusted
from ocd_core.diffusion.draw import Drawer
from ocd_core.diffusion.memory import drawing_batch
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel, Precision
from ocd_core.network.loading import load_cut_model
from ocd_core.network.moves import BasePass, Move, base_pass, outputs_with_move, row_chunks, rows_within
from ocd_core.pipeline import maker
from ocd_core.provenance import check_files
from ocd_core.registry import without_references
from ocd_core.samples import Batch, Condition, Tensors, concatenate, map_tensors, stack
from ocd_core.scale.network import ScaleNetwork
from ocd_core.tasks.base import Task
from ocd_core.weights import WEIGHTS, BaseId, refuse_another_base

_MEMORY_MB = 512


@dataclass(frozen=True)
class Prediction:
    """What a `Predictor` returns for N inputs and K draws, on its device.

    output: the answer (N, ...): one network's, the ensemble's or the mean network's. base_output: f_θ(x).
    draws: each network's own output (K, N, ...); empty for a mean network. rho: the scale network's estimate of ‖Δ‖,
    before the gain, float32 (N,), or None if the representation has no separate scale. Of a network with several
    outputs, each of the first three is a tuple.

    Examples:
        >>> found.base_output.shape  # as `predict` returned it
        torch.Size([3, 10])
        >>> found.rho is None  # `pca` draws Δ with its norm
        True
    """

    output: Tensors
    base_output: Tensors
    draws: Tensors
    rho: Tensor | None


class Predictor:
    """A base network with the hypernetwork that was trained for it, all on one device.

    Args:
        task: the domain (how outputs combine).
        model: the base network cut at the selected layer.
        diffusion: draws normalised Δ.
        scale: estimates ρ = ‖Δ‖; not used, and may be None, if the representation needs no scale.
        sampling: the group `sampling`.
        seed: of the draws; a draw depends only on (seed, draw, sample id).
        gain: the factor c of every drawn Δ, chosen on validation; None: Δ as drawn.

    Examples:
        >>> import torch
        >>> from ocd_core import Predictor
        >>> predictor = Predictor.from_pretrained("mnist5k-conv2")  # it comes with the package
        >>> predictor.model.layer_name
        'conv2'
    """

    def __init__(
        self,
        task: Task,
        model: CutModel,
        diffusion: DiffusionModel,
        scale: ScaleNetwork | None,
        sampling: SamplingParams,
        seed: int = 0,
        gain: float | None = None,
    ) -> None:
        self.task, self.model, self.sampling, self.seed, self.gain = task, model, sampling, seed, gain
        self.diffusion = diffusion.eval()
        assert scale is not None or not diffusion.representation.uses_scale
        self.scale = None if scale is None else scale.eval()
        self._sizes: dict[tuple[torch.Size, ...], int] = {}  # samples at once, by the shapes of their inputs

    @classmethod
    def from_artifacts(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        *,
        tuned: bool = False,
        trust_remote_code: bool = False,
    ) -> "Predictor":
        """Load a run of your own, `data/<task>/seed<k>/rank<r>`, onto a device.

        Args:
            folder: the run.
            device: where the networks run.
            tuned: draw with the tuned diffusion model.
            trust_remote_code: import whatever code (`module:Class`) the run's config names; otherwise only that which
                the params file of the same project, `params/<task>.yaml`, names too.

        Raises:
            UserError: something in it is missing, damaged, or belongs to another network; or it names other code.

        Examples:
            >>> predictor = Predictor.from_artifacts("runs/sums/data/sums/seed0/rank1")
            >>> predictor.predict(test[0], draws=2).draws.shape
            torch.Size([2, 10, 1])
        """
        run = Artifacts.from_folder(folder)
        for name in ("prepared", "evaluation", "diffusion", "scale", *(("tuned",) if tuned else ())):
            check_files(run.need(run.path(name), maker(name)))
        where = run.evaluation / "config.json"
        config = read_json(where)
        with nullcontext() if trust_remote_code else trusted(run.task, run.root, str(run.rank_dir)):
            params = parse_params(config, str(where))
            predictor = cls.from_run(run, params, device=device)
            return predictor.tuned(run, params) if tuned else predictor

    @classmethod
    def from_run(
        cls, run: Artifacts, params: Params, *, with_gain: bool = True, device: torch.device | str = "cpu"
    ) -> "Predictor":
        """Load a run's artifacts; the params give what is not stored in them (`sampling`, `precision`).

        Args:
            with_gain: use the gain if `scale.gain` says so; False: no gain, for the stage that chooses it.
            device: where the networks run.

        Raises:
            UserError: something in it is missing or belongs to another network.
        """
        task = params.build_task(run.prepared)
        gain = validated_gain(run) if with_gain and params.scale.gain == "validated" else None
        self = cls.of_networks(run, task, params.evaluate.precision, params.sampling, gain, device)
        if gain is not None:
            refuse_another_base(run.controls, BaseId.of(run.base / WEIGHTS, self.model.layer_name))
        return self

    @classmethod
    def from_pretrained(
        cls,
        location: Path | str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        tuned: bool = False,
        device: torch.device | str = "cpu",
    ) -> "Predictor":
        """Load a bundle, which `ocd export` made of a run; the pipeline is not needed.

        Args:
            location: a folder, a URL that fsspec knows, a Hugging Face hub id, or the name of a bundle that comes with
                the package (`ocd_core.bundles.fetch.own_bundles`).
            revision: of a hub id: a branch, a tag or a commit.
            trust_remote_code: import the code that the bundle names as `module:Class` (a domain or network of its
                maker's own, whose package must be installed). Everything else in a bundle is data.
            tuned: draw with the tuned diffusion model, which the bundle of a run with `tuning.updates` has.
            device: where the networks run.

        Raises:
            UserError: there is no such bundle; something in it is missing, damaged or changed; it names code and
                `trust_remote_code` is false; or it has no tuned model and `tuned` is true.

        Examples:
            >>> digits = Predictor.from_pretrained("mnist5k-conv2")
        """
        folder = bundle_folder(location, revision)
        manifest = check_bundle(folder)
        with nullcontext() if trust_remote_code else without_references(str(location)):
            try:
                params = read_bundle_params(folder)
                run = params.run(folder)
                task = params.build_task(run.prepared)
                found = cls.of_networks(run, task, params.precision, params.sampling, params.gain, device)
                if not tuned:
                    return found
                if params.tuned is None:
                    raise UserError(f"{location} has no tuned diffusion model; leave out tuned=True (--tuned)")
                return found.with_tuned(run, params.tuned)
            except UserError as error:
                if manifest.code_version == __version__:
                    raise
                made, here = manifest.code_version, __version__
                raise UserError(f"{error} (made by ocd-core {made}, this is {here}: try that version)") from error

    @classmethod
    def of_networks(
        cls,
        run: Artifacts,
        task: Task,
        precision: Precision,
        sampling: SamplingParams,
        gain: float | None,
        device: torch.device | str,
    ) -> "Predictor":
        """The networks of a run, which must belong together."""
        model = load_cut_model(run, task, device, precision)
        diffusion = DiffusionModel.load(run.need(run.diffusion, "train_diffusion")).to(device)
        scale = ScaleNetwork.load(run.need(run.scale, "train_scale"))
        if scale is None and diffusion.representation.uses_scale:
            raise UserError(f"{run.scale} holds no scale network, which the diffusion model needs; run 'dvc repro'")
        base = BaseId.of(run.base / WEIGHTS, model.layer_name)
        for folder in (run.diffusion, run.scale):
            refuse_another_base(folder, base)
        return cls(task, model, diffusion, None if scale is None else scale.to(device), sampling, run.seed, gain)

    def tuned(self, run: Artifacts, params: Params) -> "Predictor":
        """The same with the run's tuned diffusion model, which draws as it was tuned and has no gain.

        Raises:
            UserError: the model is missing, was not tuned, or belongs to another network.
        """
        folder = run.need(run.tuned, "tune_diffusion")
        if not params.tuning.updates:
            raise UserError(
                f"{folder} holds the untuned model, because tuning.updates is 0; raise it, then 'dvc repro'"
            )
        return self.with_tuned(run, params.tuning.sampling(params.sampling))

    def with_tuned(self, run: Artifacts, sampling: SamplingParams) -> "Predictor":
        """The same with the tuned diffusion model of these artifacts, without a gain."""
        folder = run.need(run.tuned, "tune_diffusion")
        refuse_another_base(folder, BaseId.of(run.base / WEIGHTS, self.model.layer_name))
        return self.with_diffusion(DiffusionModel.load(folder).to(self.device), sampling)

    def with_diffusion(self, diffusion: DiffusionModel, sampling: SamplingParams) -> "Predictor":
        """The same with another diffusion model on the same device, without a gain."""
        return Predictor(self.task, self.model, diffusion, self.scale, sampling, self.seed)

    def predict(
        self,
        inputs: Tensor | Sequence[Tensor],
        draws: int = 1,
        *,
        sample_id: Tensor | None = None,
        combine: Literal["ensemble", "mean_network"] = "ensemble",
    ) -> Prediction:
        """Draw `draws` networks for each input and answer with them.

        Args:
            inputs: what the base network takes, samples along the first axis, on any device.
            draws: K; with one draw, the answer is the output of that network.
            sample_id: int64 (N,), identifies the inputs in the random draws (default: 0 .. N-1).
            combine: `ensemble` combines outputs (the task says how), `mean_network` averages the weights.

        Returns:
            see `Prediction`; floating, in the precision of the network from the moved layer on.

        Raises:
            UserError: no inputs, or `draws` below 1.

        Examples:
            >>> found = digits.predict(torch.zeros(3, 1, 28, 28), draws=4)
            >>> found.output.shape, found.draws.shape, found.output.dtype
            (torch.Size([3, 10]), torch.Size([4, 3, 10]), torch.float64)
        """
        tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if not tensors or not len(tensors[0]) or draws < 1:
            raise UserError(f"predict needs at least one input and one draw (draws={draws})")
        count = len(tensors[0])
        ids = torch.arange(count) if sample_id is None else sample_id
        batch = Batch(tensors, torch.zeros(count), ids)
        size = 1 if count == 1 else self._rows_at_once(batch)
        parts = []
        for rows in row_chunks(count, size):
            part = (batch if size >= count else batch.select(rows)).to(self.device)
            parts.append(self.predict_pass(self.base_pass(part), part.sample_id, draws, combine))
        if len(parts) == 1:
            return parts[0]
        rho = [p.rho for p in parts if p.rho is not None]
        return Prediction(
            concatenate([p.output for p in parts]),
            concatenate([p.base_output for p in parts]),
            concatenate([p.draws for p in parts], axis=1),
            torch.cat(rho) if rho else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.model.device

    @cached_property
    def _drawer(self) -> Drawer:
        batch = drawing_batch(self.diffusion.params, self.diffusion.shape, self.device)
        return Drawer(self.diffusion, self.sampling, batch)

    @cached_property
    def _rho(self) -> Callable[[Condition], Tensor]:
        assert self.scale is not None
        return self.scale.for_drawing()

    def _rows_at_once(self, batch: Batch) -> int:
        shapes = tuple(x.shape[1:] for x in batch.inputs)
        if shapes not in self._sizes:
            self._sizes[shapes] = rows_within(self.model, batch.select(slice(0, 1)), _MEMORY_MB, matrices=1)
        return self._sizes[shapes]

    @torch.no_grad()
    def predict_pass(
        self, base: BasePass, sample_id: Tensor, draws: int, combine: Literal["ensemble", "mean_network"]
    ) -> Prediction:
        """Like `predict`, for a batch on which the base network has run."""
        rho = self.estimate_rho(base)
        outputs, total = [], torch.zeros(())
        for k in range(draws):
            move = self.move(base, self.code(base, sample_id, k), rho)
            if combine == "ensemble":
                outputs.append(self.answer(base, move))
            else:
                total = total + move / draws
        if combine == "mean_network":
            output = self.answer(base, total)
            none = map_tensors(lambda x: x.new_empty((0, *x.shape)), output)
            return Prediction(output, base.output, none, rho)
        stacked = stack(outputs)
        output = map_tensors(lambda x: x[0], stacked) if draws == 1 else self.task.combine(stacked)
        return Prediction(output, base.output, stacked, rho)

    def base_pass(self, batch: Batch) -> BasePass:
        """Run the base network on a batch once, for all later draws and answers."""
        return base_pass(self.task, self.model, batch)

    @torch.no_grad()
    def answer(self, base: BasePass, move: Move) -> Tensors:
        """f(x; θ + Δ) for the samples of a base pass and either form of Δ; each (N, ...)."""
        return outputs_with_move(self.model, base.cut, move, base.z_NPO)

    @torch.no_grad()
    def estimate_rho(self, base: BasePass) -> Tensor | None:
        """The scale network's ρ, (N,), or None if the representation does not use it."""
        return self._rho(base.condition) if self.diffusion.representation.uses_scale else None

    def code(self, base: BasePass, sample_id: Tensor, draw_index: int) -> Tensor:
        """One draw of Ω_0 per sample (Alg. 2), (N, *shape)."""
        return self._drawer.draw(base.condition, sample_id, self.seed, draw_index)

    def move(self, base: BasePass, code: Tensor, rho_N: Tensor | None) -> Move:
        """A drawn code as Δ (N, O, I), or as the change Δ i_L of the layer's output (N, O) if that is cheaper.

        It is multiplied by the gain.
        """
        move: Move = self.diffusion.representation.move(code, rho_N, base.cut.layer_input_NI)
        return move if self.gain is None else self.gain * move

    def delta(self, base: BasePass, code: Tensor, rho_N: Tensor | None) -> Tensor:
        """A drawn code as Δ, float32 (N, O, I), times the gain."""
        delta_NOI: Tensor = self.diffusion.representation.decode(code, rho_N, base.cut.layer_input_NI)
        return delta_NOI if self.gain is None else self.gain * delta_NOI


def validated_gain(run: Artifacts) -> float:
    """The factor of a drawn Δ that the control `ocd_gain` chose on the validation split.

    Raises:
        UserError: the run has no such control, or its controls are damaged.
    """
    path = run.need(run.controls, "train_controls") / "config.json"
    check_files(run.controls, stage="train_controls")
    with suppress(KeyError, TypeError):
        gain = read_json(path)["rows"]["ocd_gain"]["gain"]
        if isinstance(gain, float):
            return gain
    raise UserError(f"{path} holds no gain; run the stage train_controls again ('dvc repro')")
