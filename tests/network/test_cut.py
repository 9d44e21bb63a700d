"""CutModel against the plain network, in float64, with weights set by hand."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ocd_core.errors import UserError
from ocd_core.models.lenet5 import LeNet5
from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers, input_matrix, layer_kind, weight_matrix

# torch says so of even kernels, which are the point of one case
pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")


class Residual(nn.Module):
    """The layer's own input, and an earlier value, are read again after the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.fc = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(h + F.gelu(self.fc(h))) + x[:, :3]


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, stride=2, padding=1)
        self.second = nn.Conv1d(4, 3, 3, dilation=2, padding="same", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.silu(self.first(x))).mean(2)


class ConvNet(nn.Module):
    """One convolution with the given options, batch normalisation and an in-place activation after it."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, **{"kernel_size": 3, **options})
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True).flatten(1)


class Viewed(nn.Module):
    """Feature maps whose channels must be outermost in memory, since they are viewed as vectors."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module] | None = None) -> None:
        super().__init__()
        conv = nn.Conv2d(2, 4, 3)
        self.first = conv if wrap is None else wrap(conv)
        self.second = nn.Conv2d(4, 3, 3)
        self.fc = nn.Linear(3 * 5 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.fc(x.view(x.size(0), -1))


class AsksForDtype(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(x.to(self.fc.weight.dtype).to(self.fc.weight.device)))


class Positions(nn.Module):
    """A Linear layer at several positions of each sample, as for the points of a ray batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x))).sum((1, 2))


class TwoInputs(nn.Module):
    """An index and a vector; the index is read on both sides of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.scale = nn.Embedding(7, 3)
        self.fc = nn.Linear(10, 3)

    def forward(self, index: Tensor, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(torch.cat([self.table(index), x], 1))) * self.scale(index)


class Branches(nn.Module):
    """Control flow that depends on the data: fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.fc = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if float(h.abs().sum()) > 0:
            h = torch.relu(h)
        return self.last(torch.relu(self.fc(h)))


class OptionalInput(nn.Module):
    """fx follows the wrong branch here, without an error: a traced input is never None."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = torch.relu(self.fc(x))
        return h if mask is None else h * mask


class CarriesBatchSize(nn.Module):
    """The batch size crosses the layer as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4)
        self.last = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        return self.last(torch.relu(self.fc(x)).reshape(n, 2, 2)).reshape(n, 6)


class ChangesInputLater(nn.Module):
    """The layer's input changes in place after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        out = self.fc(h)
        h.relu_()
        return out + h


class InPlaceWithoutBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4, bias=False)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(x).relu_())


class NamedArgument(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(input=x))


Inputs = tuple[Tensor, ...]


def normal(*shape: int) -> Callable[[torch.Generator], Inputs]:
    return lambda generator: (torch.randn(*shape, generator=generator),)


def index_and_vector(generator: torch.Generator) -> Inputs:
    return torch.randint(0, 7, (4,), generator=generator), torch.randn(4, 5, generator=generator)


IMAGE, PICTURE, VECTOR = normal(3, 1, 28, 28), normal(3, 2, 9, 8), normal(4, 5)
# name -> (model, inputs, layer, whether fx traces it)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Inputs], str, bool]] = {
    **{f"lenet5 {name}": (LeNet5, IMAGE, name, True) for name in ("conv1", "conv2", "conv3", "fc1", "fc2")},
    **{f"mlp {i}": (lambda: MLP(5, 2, [7, 6]), VECTOR, f"layers.{i}", True) for i in range(3)},
    "residual": (Residual, VECTOR, "fc", True),
    "residual, before": (Residual, VECTOR, "first", True),
    "conv1d with stride": (Conv1dNet, normal(3, 2, 11), "first", True),
    "conv1d same, dilated, no bias": (Conv1dNet, normal(3, 2, 11), "second", True),
    "conv2d plain": (ConvNet, PICTURE, "conv", True),
    "conv2d stride": (lambda: ConvNet(stride=(2, 1), padding=(1, 0)), PICTURE, "conv", True),
    "conv2d dilation": (lambda: ConvNet(dilation=(1, 2), padding=2), PICTURE, "conv", True),
    "conv2d same, even kernel": (lambda: ConvNet(kernel_size=(2, 4), padding="same"), PICTURE, "conv", True),
    "conv2d valid": (lambda: ConvNet(padding="valid", bias=False), PICTURE, "conv", True),
    "conv2d circular": (lambda: ConvNet(padding=(1, 2), padding_mode="circular"), PICTURE, "conv", True),
    "conv2d reflect, same": (lambda: ConvNet(padding="same", padding_mode="reflect"), PICTURE, "conv", True),
    "positions": (Positions, normal(3, 2, 6, 4), "first", True),
    **{f"viewed {name}": (Viewed, PICTURE, name, True) for name in ("first", "second", "fc")},
    "beside a weight that is computed": (lambda: Viewed(weight_norm), PICTURE, "fc", True),
    "asks for the weight's dtype": (AsksForDtype, VECTOR, "fc", True),
    "two inputs": (TwoInputs, index_and_vector, "fc", True),
    "in place, no bias": (InPlaceWithoutBias, VECTOR, "fc", True),
    "data-dependent branch": (Branches, VECTOR, "fc", False),
    "optional input": (OptionalInput, VECTOR, "fc", False),
    "batch size as a number": (CarriesBatchSize, VECTOR, "fc", False),
    "input changes later": (ChangesInputLater, VECTOR, "fc", False),
    "named argument": (NamedArgument, VECTOR, "fc", False),
}
# layers that read the inputs as they are
EXACT = [
    "lenet5 conv1", "mlp 0", "residual, before", "conv1d with stride", "positions", "two inputs", "in place, no bias",
    "optional input", "batch size as a number", "named argument", *(c for c in CASES if c.startswith("conv2d")),
]  # fmt: skip


def build(case: str) -> tuple[nn.Module, Inputs, str, bool]:
    make, inputs, layer, traced = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = make().eval()
    return model, inputs(torch.Generator().manual_seed(11)), layer, traced


def doubled(inputs: Inputs) -> Inputs:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def some_deltas(cut_model: CutModel, samples: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(samples, *cut_model.weight_OI.shape, dtype=torch.float64, generator=generator)


@torch.no_grad()
def one_by_one(model: nn.Module, layer: str, inputs: Inputs, delta_NOI: Tensor | None) -> Tensor:
    """The plain network in float64, one sample at a time, with its weight set to θ + Δ."""
    outputs = []
    for i in range(len(inputs[0])):
        single = copy.deepcopy(model).double()
        weight = find_layers(single, layer)[0].weight
        if delta_NOI is not None:
            weight += delta_NOI[i].reshape(weight.shape)
        outputs.append(single(*(x[i : i + 1].clone() for x in doubled(inputs))))
    return torch.cat(outputs)


@pytest.mark.parametrize("case", CASES)
def test_outputs_with_weights_of_each_samples_own(case: str) -> None:
    model, inputs, layer, traced = build(case)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    assert cut_model.traced == traced
    assert cut.x_NPI.dtype == torch.float32
    delta = some_deltas(cut_model, len(cut))
    for change in (None, delta):
        activation, output = cut_model.forward(cut, change)
        assert output.dtype == activation.dtype == torch.float64
        # the prefix is in float32; 1e-5 is far above its rounding and far below the effect of Δ
        torch.testing.assert_close(output, one_by_one(model, layer, inputs, change), rtol=1e-5, atol=1e-5)
    base = cut_model.forward(cut)[1]
    assert float((cut_model.forward(cut, delta)[1] - base).abs().max()) > 1e-2


@pytest.mark.parametrize("case", EXACT)
def test_the_tail_is_in_float64(case: str) -> None:
    """Where float32 holds all that the prefix gives, nothing but float64's rounding is left, for tiny Δ too."""
    model, inputs, layer, _ = build(case)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    for scale in (1.0, 1e-8):
        delta = scale * some_deltas(cut_model, len(cut))
        wanted = one_by_one(model, layer, inputs, delta)
        torch.testing.assert_close(cut_model.forward(cut, delta)[1], wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_product_is_the_layer(case: str) -> None:
    model, inputs, layer, _ = build(case)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    module = copy.deepcopy(find_layers(model, layer)[0]).double()
    x_NPI = input_matrix(module, cut.layer_input.double())
    z_NPO = x_NPI @ weight_matrix(module).T + (0 if module.bias is None else module.bias)
    wanted = module(cut.layer_input.double())
    found = (z_NPO.transpose(1, 2) if layer_kind(module) == "conv" else z_NPO).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_layers_output(case: str) -> None:
    """dL/dz against finite differences, also where an activation works in place."""
    model, inputs, layer, _ = build(case)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    z = cut_model.layer_output(cut).requires_grad_(True)
    before = z.detach().clone()
    cut_model.tail(z, cut)[1].square().sum().backward()
    assert z.grad is not None
    assert torch.equal(z.detach(), before)
    direction = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(1))
    step = 1e-6
    with torch.no_grad():
        up, down = (float(cut_model.tail(before + s * direction, cut)[1].square().sum()) for s in (step, -step))
    assert float((z.grad * direction).sum()) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_samples_can_be_chosen_and_repeated_after_the_cut(case: str) -> None:
    model, inputs, layer, _ = build(case)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    rows = torch.tensor([2, 0, 2, 1, 0])
    chosen = cut.select(rows)
    delta = some_deltas(cut_model, len(rows))
    wanted = one_by_one(model, layer, tuple(x[rows] for x in inputs), delta)
    torch.testing.assert_close(cut_model.forward(chosen, delta)[1], wanted, rtol=1e-5, atol=1e-5)


def test_the_layers_input_is_a_vector_for_one_position_only() -> None:
    for case, one in (("two inputs", True), ("lenet5 conv1", False), ("positions", False)):
        model, inputs, layer, _ = build(case)
        cut = CutModel(model, layer).prefix(inputs)
        assert (cut.layer_input_NI is not None) == one
        if cut.layer_input_NI is not None:
            assert torch.equal(cut.layer_input_NI, cut.layer_input)


@pytest.mark.parametrize("case", CASES)
def test_the_users_model_and_inputs_stay_as_they_are(case: str) -> None:
    model, inputs, layer, _ = build(case)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    copies = tuple(x.clone() for x in inputs)
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    cut_model.forward(cut, some_deltas(cut_model, len(cut)))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_a_first_batch_of_one_sample_settles_the_trace_for_all() -> None:
    for case in ("batch size as a number", "residual"):
        model, inputs, layer, traced = build(case)
        cut_model = CutModel(model, layer)
        cut_model.prefix(tuple(x[:1] for x in inputs))
        assert cut_model.traced == traced
        torch.testing.assert_close(
            cut_model.forward(cut_model.prefix(inputs))[1], one_by_one(model, layer, inputs, None), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("model", "layer", "size", "wanted"),
    [
        (LeNet5(), "fc1", (2, 1, 28, 28), "output of fc1 after relu"),
        (LeNet5(), "fc2", (2, 1, 28, 28), "output of fc2"),
        (ConvNet(), "conv", (2, 2, 5, 5), "output of conv"),
        (nn.Sequential(nn.Linear(3, 3), nn.ELU(), nn.Linear(3, 2)), "0", (2, 3), "output of 0 after ELU"),
        (Branches(), "fc", (2, 5), "output of fc"),
    ],
    ids=["function", "last", "before batch normalisation", "module", "not traced"],
)
def test_where_the_activation_is_read_is_said(model: nn.Module, layer: str, size: tuple[int, ...], wanted: str) -> None:
    cut_model = CutModel(model, layer)
    x = torch.rand(size)
    activation = cut_model.forward(cut_model.prefix((x,)))[0]
    assert cut_model.activation_read == wanted
    kept: list[Tensor] = []
    model.double().eval().get_submodule(layer).register_forward_hook(lambda _m, _in, out: kept.append(out))
    with torch.no_grad():
        model(x.double())
    own = kept[0]  # the hook returns None, and so the output stays
    after = {"relu": F.relu, "ELU": F.elu}.get(wanted.rpartition(" after ")[2], lambda z: z)
    torch.testing.assert_close(activation, after(own).view_as(activation), rtol=1e-5, atol=1e-6)


def test_the_activation_is_taken_after_the_non_linearity() -> None:
    model, inputs, _, _ = build("lenet5 fc1")
    cut_model = CutModel(model, "fc1")
    cut = cut_model.prefix(inputs)
    activation = cut_model.forward(cut)[0]
    wanted = torch.relu(find_layers(model, "fc1")[0](cut.layer_input)).detach().double()
    torch.testing.assert_close(activation, wanted, rtol=1e-5, atol=1e-6)
    # the last layer has none, and what is not traced gives the value before it
    logits, output = CutModel(model, "fc2").forward(CutModel(model, "fc2").prefix(inputs))
    assert torch.equal(logits, output)
    model, inputs, layer, _ = build("data-dependent branch")
    cut_model = CutModel(model, layer)
    cut = cut_model.prefix(inputs)
    wanted = find_layers(model, layer)[0](cut.layer_input).detach().double()
    torch.testing.assert_close(cut_model.forward(cut)[0], wanted, rtol=1e-5, atol=1e-6)


def test_dropout_is_off_and_batch_statistics_are_the_stored_ones() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.norm(self.fc(x)), 0.5, self.training)

    torch.manual_seed(0)
    model = Noisy().train()
    (inputs,) = VECTOR(torch.Generator().manual_seed(0))
    cut_model = CutModel(model, "fc")
    output = cut_model.forward(cut_model.prefix((inputs,)))[1]
    torch.testing.assert_close(output, one_by_one(model.eval(), "fc", (inputs,), None), rtol=1e-5, atol=1e-5)


# --- finding layers ---


class SamplesNotFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.transpose(0, 1)).transpose(0, 1)


class Flattened(SamplesNotFirst):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(0, 1)).reshape(*x.shape[:2], 2)


class NoSampleAxis(SamplesNotFirst):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((0, 1))).expand(len(x), 2)


@pytest.mark.parametrize("model", [SamplesNotFirst, Flattened, NoSampleAxis])
def test_samples_that_are_not_in_the_first_axis(model: type[nn.Module]) -> None:
    with pytest.raises(UserError, match="the model must keep the samples in the first axis"):
        CutModel(model(), "fc").prefix((torch.zeros(4, 3, 5),))


def test_the_models_own_errors_come_through() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        CutModel(MLP(5, 2), "layers.0").prefix((torch.zeros(3, 4),))
