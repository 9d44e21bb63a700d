"""OCD for a network, a loss and data that are given in Python: `fit`, `predict`, `evaluate`, `save` and `load`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts
from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.layout import check_bundle
from ocd_core.bundles.params import read_bundle_params
from ocd_core.calls.checks import as_batch, check_given, first_output, run_network
from ocd_core.calls.data import Parts, Source, refuse_label, refuse_nan
from ocd_core.calls.defaults import check_options, given_params, merge
from ocd_core.calls.form import Form
from ocd_core.calls.identity import function_digest, network_digest
from ocd_core.calls.model import Pick, adapted, check_names, pick_of, plain_network, taken_of
from ocd_core.calls.results import results_frame
from ocd_core.calls.stages import Stages, stdout_apart
from ocd_core.calls.task import DOMAIN, TEST, Given, GivenData, GivenTask, keep_test
from ocd_core.codes.principal import directions
from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.files import is_shortage, is_url, locked, path_of
from ocd_core.fingerprint import digest
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers, refuse_shared_weights
from ocd_core.network.ranking import read_ranking
from ocd_core.predictor import Prediction, Predictor
from ocd_core.probing.diagnosis import VERDICT
from ocd_core.registry import without_references
from ocd_core.samples import Batch, spread_rows
from ocd_core.scoring.params import ENTROPY, VALIDATED
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEEN = 32  # samples of a split that are looked at, spread over it, since it may be sorted
_TRIED = 8  # how many of them network and loss are tried on
_EVALUATING = ".evaluate.lock"  # beside the test rows
_DIRECTIONS = 500  # rows of the store from which the rank of the training Δ is taken


class OCD:
    """Learn to overfit any torch network: draw the weights of one layer for each input, and answer with them.

    Under `out` lie the artifacts of a run of the pipeline (`data/<name>/seed<k>/rank1/...`, `reports/<name>`) and its
    params (`params/<name>.yaml`), where <name> is the last part of `out`. What is done and still fits is not done
    again, so an interrupted call goes on where it stopped.

    Args:
        model: a trained network, used in eval mode and never changed. Wrappers of DataParallel and torch.compile are
            taken off. It works in float32, whatever its dtype.
        loss: (output, target) -> the loss of each sample, (N,).
        layer: whose weight moves: a layer's name (several joined by `+`); `entropy`: the first by the entropy of the
            loss under perturbation (Eq. 3); `validated`: the one in which a probe gains most on the validation split. A
            dict stands for the whole group `layer` of the params.
        out: the folder of the run.
        seed: of everything random.
        output: makes a tensor, or a tuple of tensors, of the model's output, such as `lambda out: out.logits`; the
            entry `logits` of a dict is found without it.
        metrics: further metrics for `evaluate`.
        workers: processes that read a Dataset.
        device: cpu or cuda, for what trains, draws and evaluates.
        options: groups of params as dicts, such as `overfit={"steps": 5}`; see any file in `params/`.

    Raises:
        UserError: something of this cannot be used; the message says what to give instead.

    Examples:
        >>> import torch
        >>> from ocd_core import OCD
        >>> x = torch.randn(70, 3, generator=torch.Generator().manual_seed(0))
        >>> y = x.square().sum(1, keepdim=True)
        >>> train, val, test = (x[:40], y[:40]), (x[40:60], y[40:60]), (x[60:], y[60:])
        >>> def loss(output, target):
        ...     return (output - target).square().mean(1)
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> few = {"updates": 20, "validate_every": 10}
        >>> rows = ["base", "ocd", "ocd_ensemble", "bound"]
        >>> ocd = OCD(
        ...     model, loss, layer="0", out="runs/sums",
        ...     diffusion=few, scale=few, controls={"fit": []}, evaluate={"rows": rows, "draws": [3]},
        ... )
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        *,
        layer: str | Mapping[str, Any] = "entropy",
        out: Path | str = "runs/ocd",
        seed: int = 0,
        output: Pick | None = None,
        metrics: Sequence[Metric] = (),
        workers: int = 0,
        device: str = "cpu",
        **options: Mapping[str, Any],
    ) -> None:
        check_options(options)
        group = {} if isinstance(layer, str) else dict(layer)
        self._options: dict[str, Any] = {"layer": group}
        merge(self._options, options)
        self._layer = layer if isinstance(layer, str) else str(group.get("select", ENTROPY))
        self._loss, self._pick, self._metrics = _checked_loss(loss), output, tuple(metrics)
        self._workers, self._device = workers, device
        self._network = plain_network(model)
        if self._layer not in (ENTROPY, VALIDATED):
            find_layers(self._network, self._layer)
            refuse_shared_weights(self._network, self._layer)
        self._identity = [network_digest(self._network), function_digest(loss)]
        root = path_of(out).resolve()
        self.artifacts = Artifacts(root.name, seed, 1, root)
        self._given: Given | None = None
        self._form: Form | None = None  # of the training samples
        self._params: Params | None = None
        self._predictor: Predictor | None = None
        self._loaded: str | None = None  # the bundle

    def __repr__(self) -> str:
        state = "fitted" if self._params is not None else "not fitted"
        where = f"out={str(self.artifacts.root)!r}): {state}" if self._loaded is None else f"from {self._loaded!r})"
        return f"OCD({type(self._network).__name__}, layer={self._layer!r}, {where}"

    def diagnose(self, train: Any, val: Any) -> str:
        """Say whether OCD can help, in which layer and how much, before any diffusion model is trained.

        Args:
            train: as for `fit`.
            val: as for `fit`.

        Returns:
            the verdict, as Markdown; `data/<name>/seed<k>/diagnosis` has its numbers and a picture.

        Raises:
            UserError: see `fit`.

        Examples:
            >>> verdict = ocd.diagnose(train, val)
            >>> any(word in verdict for word in ("Likely", "Unlikely", "No gap"))
            True
        """
        if self._loaded is not None:
            raise UserError("this OCD was loaded from a bundle, to predict; make OCD(model, loss, out=...)")
        sources = {name: Source.of(data, name, self._workers) for name, data in (("train", train), ("val", val))}
        data, _ = self._describe(sources["train"], sources["val"])
        with stdout_apart():
            params = given_params(data, self._layer, self._options)
            self._stages.run(params, ("prepare", "train_base", "score_layers", "diagnose"))
        return (self.artifacts.diagnosis / VERDICT).read_text(encoding="utf-8")

    def fit(self, train: Any, val: Any) -> "OCD":
        """Overfit each sample, train the diffusion model and the scale network, and tune if `tuning` asks for it.

        Args:
            train: (inputs, targets), or a map-style torch Dataset of such pairs, or a DataLoader of one. Inputs are a
                tensor (N, ...), a tuple of tensors (a model with several inputs) or a dict (keywords), of any dtype
                that the model takes. Tensors are compared with those of an earlier `fit` in the same `out` as a whole,
                a Dataset by its length and 16 of its rows, or by its length alone if it reads them differently each
                time: if you changed others, give another `out`.
            val: the same; everything that is chosen is chosen on it.

        Returns:
            the same object.

        Raises:
            UserError: data, network or loss do not fit together, a param is impossible, or `params/<name>.yaml` is
                there and of another task.

        Examples:
            >>> ocd.fit(train, val)
            OCD(Sequential, layer='0', out='...sums'): fitted
        """
        if self._loaded is not None:
            raise UserError("this OCD was loaded from a bundle, to predict; to fit, make OCD(model, loss, out=...)")
        sources = {name: Source.of(data, name, self._workers) for name, data in (("train", train), ("val", val))}
        data, batch = self._describe(sources["train"], sources["val"])
        self._predictor = None
        stages = self._stages
        with stdout_apart():
            params = given_params(data, self._layer, self._options)
            stages.run(params, ("prepare", "train_base", "score_layers"))
            layer = read_ranking(self.artifacts.layers).used["1"]
            one_position, store_bytes = self._look_at(layer, batch, len(sources["train"]))
            params = given_params(data, self._layer, self._options, one_position, None, store_bytes)
            stages.run(params, ("overfit",), ("train", "val"))
            directions = None if params.diffusion.representation.name == "factored" else self._directions()
            params = given_params(data, self._layer, self._options, one_position, directions, store_bytes)
            of_gain = ["train_controls"] if params.scale.gain == "validated" else []
            stages.run(params, ["train_diffusion", "train_scale", "tune_diffusion", *of_gain])
        self._params = params
        return self

    def predict(self, x: Any, draws: int = 5) -> Prediction:
        """Draw networks for each input and answer with them.

        Args:
            x: inputs in the form of the training inputs, N samples.
            draws: networks per input.

        Returns:
            `output` (N, ...) of all draws together, `base_output`, `draws` (K, N, ...) and `rho` (N,); floating, in
            the precision of `evaluate.precision` (float64 if nothing else was asked for), `rho` in float32.

        Raises:
            UserError: `fit` was not called, or the inputs are not like those of the training, or hold NaN.

        Examples:
            >>> answer = ocd.predict(test[0], draws=5)
            >>> answer.output.shape, answer.draws.shape, answer.rho.shape
            (torch.Size([10, 1]), torch.Size([5, 10, 1]), torch.Size([10]))
            >>> answer.output.dtype, answer.rho.dtype
            (torch.float64, torch.float32)
        """
        predictor, task = self._ready(), self._task_data()
        parts = Parts.of(x, "x")
        if (parts.names is not None) != task.by_name or (parts.names and {*parts.names} != {*task.inputs}):
            wanted = f"a dict with {', '.join(task.inputs)}" if task.by_name else f"{len(task.inputs)} tensor(s)"
            raise UserError(f"x: give {wanted}, as for the training")
        if len(parts.tensors) != len(task.inputs):
            raise UserError(f"x: it has {len(parts.tensors)} tensors instead of {len(task.inputs)}")
        by_name = dict(zip(parts.names or task.inputs, parts.tensors, strict=True))
        inputs = tuple(by_name[name] for name in task.inputs)
        self._check_inputs(Parts(inputs, parts.names and tuple(task.inputs), parts.single))
        try:
            return predictor.predict(inputs, draws)
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            if not (isinstance(error, UserError) or is_shortage(error)):
                assert self._given is not None
                run_network(self._given, tuple(part[:1] for part in inputs))  # says so if the network is the reason
            raise

    def evaluate(self, test: Any, *, report: bool = True) -> Any:
        """Measure base, controls, OCD and the bound on a test split, and write the report.

        Args:
            test: like `train` of `fit`.
            report: write `reports/<name>`, too: pages and figures, which take some seconds.

        Returns:
            a pandas DataFrame (see `ocd_core.calls.results`): one line a row of the table.

        Raises:
            UserError: `fit` was not called, the data is not like that of the training, or another process evaluates in
                `out`.

        Examples:
            >>> frame = ocd.evaluate(test)
            >>> list(frame.index)
            ['base', 'base +σ', 'ocd', 'ocd +σ', 'ocd_ensemble', 'ocd_ensemble +σ', 'bound', 'bound +σ']
        """
        if self._params is None or self._given is None:
            raise UserError("call fit first")
        self._given.keep()
        source = Source.of(test, "test", self._workers)
        self._check_like_train(source)
        folder = self.artifacts.prepared.with_name(TEST)
        # the test rows, and what is made of them, are one's own until the table is read
        with locked(folder.with_name(_EVALUATING), f"the evaluation in {self.artifacts.root}"):
            keep_test(source, folder, self._given.classes)
            with stdout_apart():
                self._stages.evaluate(self._params, self._metrics)
                if report:
                    self._stages.run(self._params, ("illustrate", "report"))
            return results_frame(self.artifacts.evaluation / "table.json")

    def plot(self, name: str) -> "Figure":
        """Draw a plot of the run as a matplotlib figure, which a notebook shows and `savefig` saves.

        Args:
            name: `diagnosis`: what each probed layer gains (after `diagnose`); `layers`: the scores of the layers;
                `overfit`: norms and losses of the training Δ, and some Δ as images; `curves`: the losses of the
                trainings (these after `fit`); `differences`: every row's difference from the base; `reliability`: of
                the probabilities of classes (these after `evaluate`).

        Returns:
            a figure; it is not registered with pyplot, so it needs no closing.

        Raises:
            UserError: there is no such plot, or nothing to show yet.

        Examples:
            >>> ocd.plot("differences").savefig("differences.png")
        """
        from ocd_core.calls.plots import run_figure

        if self._loaded is not None:
            raise UserError("this OCD was loaded from a bundle, which holds no results to plot")
        return run_figure(self.artifacts, name)

    def save(self, dest: Path | str) -> None:
        """Write a bundle, as `ocd export` does: the weights of all networks, and what prediction needs of the params.

        It holds no code: `OCD.load` needs the model's class again.

        Args:
            dest: a folder or an fsspec URL at which nothing is yet.

        Raises:
            UserError: `fit` was not called, or something is there.

        Examples:
            >>> ocd.save("sums-bundle")
        """
        from ocd_core.report.run_export import export_parts

        if self._loaded is not None:
            raise UserError("this OCD was loaded from a bundle; copy the bundle")
        if self._params is None or self._given is None:
            raise UserError("call fit first")
        self._given.keep()
        predictor = Predictor.from_run(self.artifacts, self._params)
        export_parts(self.artifacts, self._params, predictor, str(dest if is_url(dest) else path_of(dest)))

    @classmethod
    def load(
        cls,
        location: Path | str,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        *,
        output: Pick | None = None,
        device: str = "cpu",
    ) -> "OCD":
        """A bundle that `save` wrote, ready to predict.

        Args:
            location: a folder, a URL that fsspec knows, or a Hugging Face hub id.
            model: a network of the same architecture; its weights are replaced by those of the bundle, in a copy.
            loss: as it was given to `OCD`.
            output: as it was given to `OCD`.
            device: cpu or cuda.

        Raises:
            UserError: it is no such bundle, or the network has another architecture.

        Examples:
            >>> again = OCD.load("sums-bundle", model, loss)
            >>> torch.equal(again.predict(test[0], draws=5).output, answer.output)
            True
        """
        folder = bundle_folder(location, None)
        check_bundle(folder)
        described = read_bundle_params(folder)
        if described.domain != DOMAIN:
            raise UserError(
                f"{location} is a bundle of the domain {described.domain}: Predictor.from_pretrained loads it"
            )
        data = described.data_as(GivenData, folder)
        self = cls(model, loss, output=output, device=device)
        network = adapted(self._network, data.inputs, data.by_name, pick_of(data.taken, output))
        self._given = Given(data.given, network, self._loss).keep()
        with without_references(str(location)):
            task, run = GivenTask(data, DOMAIN, {}), described.run(folder)
            predictor = Predictor.of_networks(
                run, task, described.precision, described.sampling, described.gain, device
            )
            self._predictor = predictor if described.tuned is None else predictor.with_tuned(run, described.tuned)
        self._layer, self._loaded = self._predictor.model.layer_name, str(location)
        return self

    @property
    def _stages(self) -> Stages:
        return Stages(self.artifacts, self._device)

    def _describe(self, train: Source, val: Source) -> tuple[GivenData, Batch]:
        """What stands in the params for the objects; the objects are tried and kept."""
        _, inputs, target = _seen(train)
        if len(train) < 2:
            raise UserError("train: at least two samples are needed")
        form = Form.of(inputs, target)
        names, by_name = form.names, form.by_name
        check_names(names)
        plain = self._network
        tried = spread_rows(len(target.tensors[0]), _TRIED)
        taken = taken_of(first_output(plain, inputs.select(tried)), self._pick)
        key = digest([*self._identity, "" if self._pick is None else function_digest(self._pick), target.names])
        if self._given is None or self._given.key != key:
            network = adapted(plain_network(plain), names, by_name, pick_of(taken, self._pick))
            self._given = Given(key, network, self._loss, target.names, target.single, self._metrics)
        self._given.keep().sources = {"train": train, "val": val}
        batch = as_batch(inputs, target).select(tried)
        known = train.data[1] if train.in_memory else target
        outputs, self._given.classes = check_given(self._given, batch, known.tensors)
        self._form = form
        self._check_like_train(val)
        data = GivenData(
            given=key, train=train.digest(), val=val.digest(), inputs=names, by_name=by_name, taken=taken,
            outputs=outputs,
        )  # fmt: skip
        return data, batch

    def _check_inputs(self, inputs: Parts) -> None:
        """Compare inputs to predict with those of the training, as far as a bundle tells of them."""
        counts = {len(part) if part.dim() else 0 for part in inputs.tensors}
        if len(counts) > 1:
            raise UserError(f"x: its tensors have different lengths ({', '.join(map(str, sorted(counts)))})")
        _refuse_nan("x", range(counts.pop()), inputs)
        if self._form is not None:
            self._form.refuse_others(inputs, None, "x")

    def _check_like_train(self, source: Source) -> None:
        """Compare some samples of a split with those of train, and try network and loss on them."""
        assert self._form is not None
        assert self._given is not None
        rows, inputs, target = _seen(source)
        self._form.refuse_others(inputs, target, source.what)
        if self._given.classes is not None:
            refuse_label(target.tensors[0].numpy(), self._given.classes, source.what, rows)
        batch = as_batch(inputs, target)
        try:
            check_given(self._given, batch.select(spread_rows(len(batch), _TRIED)), target.tensors)
        except UserError as error:
            raise UserError(f"{source.what}: {error}") from error

    def _look_at(self, layer: str, batch: Batch, rows: int) -> tuple[bool, int]:
        """Whether the layer sees one position of a sample, and what the Δ of all rows take in bytes."""
        assert self._given is not None
        model = CutModel(self._given.network, layer)
        cut = model.prefix(batch.inputs)
        if not model.traced:
            print(
                f"note: torch.fx cannot trace {type(self._network).__name__}, so the whole network runs for every step "
                "of a sample: the results are the same, but it is slower",
                file=sys.stderr,
            )
        return cut.x_NPI.shape[1] == 1, 4 * rows * model.weight_OI.numel()

    def _directions(self) -> int:
        """How many directions the training Δ span, at least; of a store with many rows, those of some."""
        store = OverfitStore(self.artifacts.overfit("train"))
        return directions(torch.from_numpy(store.deltas(spread_rows(len(store), _DIRECTIONS).numpy())))

    def _ready(self) -> Predictor:
        if self._predictor is None:
            if self._params is None:
                raise UserError("call fit first")
            assert self._given is not None
            self._given.keep()  # another OCD of the same objects may have taken its place
            run, params = self.artifacts, self._params
            predictor = Predictor.from_run(run, params, device=self._device)
            self._predictor = predictor.tuned(run, params) if params.tuning.updates else predictor
        return self._predictor

    def _task_data(self) -> GivenData:
        data = self._ready().task.data
        assert isinstance(data, GivenData)
        return data


def _seen(source: Source) -> tuple[list[int], Parts, Parts]:
    """Some rows of a split, and their inputs and targets."""
    rows = spread_rows(len(source), _SEEN)
    inputs, target = source.rows(rows)
    numbers: list[int] = rows.tolist()
    _refuse_nan(source.what, numbers, inputs, target)
    return numbers, inputs, target


def _refuse_nan(what: str, rows: Sequence[int], *several: Parts) -> None:
    for parts in several:
        for tensor in parts.tensors:
            refuse_nan(tensor.numpy(), what, rows)


def _checked_loss(loss: Any) -> Callable[[Any, Any], Tensor]:
    if not callable(loss):
        raise UserError(f"loss: give a function (output, target) -> the loss of each sample, not {type(loss).__name__}")
    found: Callable[[Any, Any], Tensor] = loss
    return found
