"""Overfitting against the plain procedure: one sample at a time, a copy of the network, torch.optim, float64."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.models.googlenet import Inception
from ocd_core.models.lenet5 import LeNet5
from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers
from ocd_core.overfit import rules
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.steps import Convergence, StepPart, overfit
from ocd_core.rng import torch_generator
from ocd_core.store.factored import rebuild_delta
from tests.support.params import overfit_params


def params(**changes) -> OverfitParams:
    return overfit_params(**{"lr": 0.01, "steps": 3, "memory_mb": 64, **changes})


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).mean(1)


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().flatten(1).mean(1)


def loop(model: nn.Module, layer: str, x: Tensor, y: Tensor, loss, p: OverfitParams) -> tuple[Tensor, Tensor]:
    """Δ and the losses (before, then after each step) of every sample, as the paper's Alg. 1 says."""
    deltas, losses = [], []
    for i in range(len(x)):
        net = copy.deepcopy(model).double().eval()
        weight = find_layers(net, layer)[0].weight
        start = weight.detach().clone()
        make = torch.optim.SGD if p.optimizer == "sgd" else torch.optim.Adam
        optimizer = make([weight], lr=p.lr)
        values = [loss(net(x[i : i + 1].double()), y[i : i + 1]).item()]
        for _ in range(p.steps):
            optimizer.zero_grad()
            loss(net(x[i : i + 1].double()), y[i : i + 1]).sum().backward()
            optimizer.step()
            values.append(loss(net(x[i : i + 1].double()), y[i : i + 1]).item())
            if p.until_converged and not values[-2] - values[-1] > p.tolerance * values[-2]:
                break
        values += [values[-1]] * (p.steps + 1 - len(values))
        deltas.append((weight.detach() - start).flatten(1))
        losses.append(torch.tensor(values, dtype=torch.float64))
    return torch.stack(deltas), torch.stack(losses)


def relative_error(found: Tensor, expected: Tensor) -> Tensor:
    return (found.double() - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp_min(1e-30)


def trained_lenet() -> tuple[LeNet5, Tensor, Tensor]:
    """A LeNet5 that is confident on some samples (losses down to about 1e-6), as a trained one is."""
    g = torch_generator(0, "lenet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = LeNet5()
    x = torch.rand(12, 1, 28, 28, generator=g)
    y = torch.randint(10, (12,), generator=g)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x[:9]), y[:9]).backward()
        optimizer.step()
    return net.eval(), x, y


LENET = trained_lenet()


def mlp_case() -> tuple[MLP, Tensor, Tensor]:
    g = torch_generator(1, "mlp")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = MLP(5, 2, [7, 6])
    return net.eval(), torch.randn(8, 5, generator=g), torch.randn(8, 2, generator=g)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "fc1", "fc2"])
def test_classification_equals_the_loop(layer: str, optimizer: str) -> None:
    net, x, y = LENET
    p = params(optimizer=optimizer, lr=0.01 if optimizer == "sgd" else 5e-4)
    cut_model = CutModel(net, layer)
    expected, losses = loop(net, layer, x, y, cross_entropy, p)
    assert losses[:, 0].min() < 1e-3, "the case must have confident samples"
    found = overfit(cut_model, lambda _step: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, p)
    error = relative_error(found.delta_NOI, expected)
    # Adam divides by |gradient| + 1e-8: where a gradient is about 1e-8, the float32 prefix shows
    assert error.median() < 1e-5
    assert error.max() < 1e-3
    torch.testing.assert_close(found.loss_before_N, losses[:, 0], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found.rho_N, expected.flatten(1).norm(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layer", ["0.b1.0", "0.b2.3", "0.b3.6", "0.b4.1"])
def test_a_layer_inside_an_inception_block_equals_the_loop(layer: str, optimizer: str) -> None:
    """A convolution before batch normalisation, whose statistics must stay those of training."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = nn.Sequential(Inception(3, 4, 2, 5, 2, 3, 2), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(14, 4))
        x, y = torch.randn(5, 3, 6, 6), torch.tensor([3, 1, 0, 2, 1])
        for _ in range(10):
            net.train()(x * 1.5)
    cut_model = CutModel(net, layer)
    p = params(optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 5e-4)
    expected, losses = loop(net, layer, x, y, cross_entropy, p)
    found = overfit(cut_model, lambda _step: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, p)
    assert cut_model.traced
    assert (losses[:, -1] < losses[:, 0]).all()
    assert cut_model.activation_read == f"output of {layer}"
    assert relative_error(found.delta_NOI, expected).max() < 1e-3
    torch.testing.assert_close(found.loss_before_N, losses[:, 0], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("loss", [squared_error, absolute_error])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layer", ["layers.0", "layers.1", "layers.2"])
def test_regression_equals_the_loop(layer: str, optimizer: str, loss) -> None:
    net, x, y = mlp_case()
    p = params(optimizer=optimizer, lr=0.05, steps=4)
    cut_model = CutModel(net, layer)
    expected, _ = loop(net, layer, x, y.double(), loss, p)
    found = overfit(cut_model, lambda _step: [StepPart(cut_model.prefix((x,)), y.double())], loss, p)
    assert relative_error(found.delta_NOI, expected).max() < 1e-4


@pytest.mark.parametrize("layer", ["layers.0", "layers.2"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_float32_tail_is_near_where_no_sample_is_confident(layer: str, optimizer: str) -> None:
    net, x, y = mlp_case()
    p = params(optimizer=optimizer, lr=0.05, steps=4)
    expected, losses = loop(net, layer, x, y.double(), squared_error, p)
    cut_model = CutModel(net, layer, "float32")
    for change in (False, True):  # one position at a time, then the general way
        inputs = lambda _step: [StepPart(cut_model.prefix((x,)), y)]  # noqa: E731
        found = overfit(cut_model, inputs, squared_error, p, inputs_change=change)
        assert found.loss_before_N.dtype == torch.float32
        assert 0 < relative_error(found.delta_NOI, expected).max() < 1e-3
        torch.testing.assert_close(found.loss_after_NS.double(), losses[:, 1:], rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(found.rho_N, expected.flatten(1).norm(dim=1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("layer", ["fc1", "conv2"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_until_converged_stops_each_sample_by_itself(layer: str, optimizer: str) -> None:
    net, x, y = LENET
    lr, tolerance = (0.01, 0.03) if optimizer == "sgd" else (1e-3, 0.2)
    p = params(optimizer=optimizer, lr=lr, steps=6, until_converged=True, tolerance=tolerance)
    cut_model = CutModel(net, layer)
    expected, losses = loop(net, layer, x, y, cross_entropy, p)
    stopped = (losses[:, -1] == losses[:, -2]).sum()
    assert 0 < stopped < len(x), "the case must have samples that stop and samples that go on"
    found = overfit(cut_model, lambda _step: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, p)
    assert relative_error(found.delta_NOI, expected).max() < 1e-3
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-4, atol=1e-9)


def test_until_converged_stops_where_the_loss_is_negative() -> None:
    """A likelihood or a signal-to-noise ratio: a plateau far below 0 is one, and so is a loss that rises a little."""
    moving = Convergence(torch.tensor([-10.0, -10.0, -10.0, 10.0]), params(until_converged=True, tolerance=1e-2))
    moving.after_step(torch.tensor([-10.0, -9.95, -10.2, 9.8]))
    assert moving.moving.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_factored_layout_rebuilds_the_dense_delta(optimizer: str) -> None:
    net, x, y = LENET
    cut_model = CutModel(net, "fc1")
    lr = 0.01 if optimizer == "sgd" else 5e-4
    dense = overfit(
        cut_model, lambda _s: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, params(optimizer=optimizer, lr=lr)
    )
    factors = overfit(
        cut_model,
        lambda _s: [StepPart(cut_model.prefix((x,)), y)],
        cross_entropy,
        params(optimizer=optimizer, lr=lr, layout="factored"),
    )
    assert factors.delta_NOI is None
    layer_input = cut_model.prefix((x,)).x_NPI[:, 0]
    rebuilt = rebuild_delta(factors.grad_u_NSO.numpy(), layer_input.numpy(), optimizer, lr)
    assert relative_error(torch.from_numpy(rebuilt), dense.delta_NOI.double()).max() < 2e-6
    torch.testing.assert_close(factors.rho_N, dense.rho_N)


def test_inputs_of_each_step() -> None:
    """Where a step draws its own inputs, step k sees inputs(k), and its loss is on the inputs before its update."""
    net, x, y = mlp_case()
    cut_model = CutModel(net, "layers.0")
    many_x = torch.stack([x + 0.1 * k for k in range(4)])
    p = params(lr=0.1, steps=3)
    inputs = lambda k: [StepPart(cut_model.prefix((many_x[k],)), y.double())]  # noqa: E731
    found = overfit(cut_model, inputs, squared_error, p, inputs_change=True)
    for i in range(len(x)):
        net64 = copy.deepcopy(net).double()
        weight = net64.layers[0].weight
        start, values = weight.detach().clone(), []
        for k in range(4):
            loss = squared_error(net64(many_x[k, i : i + 1].double()), y[i : i + 1].double()).sum()
            values.append(loss.item())
            if k < 3:
                (grad,) = torch.autograd.grad(loss, weight)
                weight.data -= p.lr * grad
        torch.testing.assert_close(found.delta_NOI[i].double(), weight.detach() - start, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found.loss_before_N[i].item(), values[0], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found.loss_after_NS[i].tolist(), values[1:], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_parts_of_a_step_give_what_the_whole_gives(optimizer: str) -> None:
    """Five points a sample under a loss that is their mean, whole and as two and three of them."""
    net, _, _ = mlp_case()
    g = torch_generator(0, "points")
    x, y = torch.randn(4, 3, 5, net.layers[0].in_features, generator=g), torch.randn(3, 5, generator=g).double()
    y = y[..., None].expand(-1, -1, net.layers[-1].out_features)
    cut_model, p = CutModel(net, "layers.0"), params(optimizer=optimizer, lr=0.05, steps=3)

    def cut_into(*sizes: int):
        def inputs(step: int):
            at = 0
            for size in sizes:
                rows = slice(at, at + size)
                yield StepPart(cut_model.prefix((x[step][:, rows],)), y[:, rows], size / 5)
                at += size

        return inputs

    whole, parts = (overfit(cut_model, cut_into(*s), squared_error, p, inputs_change=True) for s in ((5,), (2, 3)))
    torch.testing.assert_close(parts.delta_NOI, whole.delta_NOI, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(parts.loss_before_N, whole.loss_before_N, rtol=1e-10, atol=0)
    torch.testing.assert_close(parts.loss_after_NS, whole.loss_after_NS, rtol=1e-6, atol=0)


def test_result_does_not_depend_on_the_batch() -> None:
    net, x, y = LENET
    cut_model = CutModel(net, "conv2")
    whole = overfit(cut_model, lambda _s: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, params())
    alone = overfit(cut_model, lambda _s: [StepPart(cut_model.prefix((x[3:4],)), y[3:4])], cross_entropy, params())
    torch.testing.assert_close(alone.delta_NOI[0], whole.delta_NOI[3], rtol=1e-4, atol=1e-12)


def test_zero_gradient_gives_zero_delta() -> None:
    """A sample that is fitted exactly does not move: ρ = 0, not NaN."""
    net, x, _ = mlp_case()
    cut_model = CutModel(net, "layers.1")
    cut = cut_model.prefix((x,))
    target = cut_model.forward(cut)[1]
    found = overfit(cut_model, lambda _s: [StepPart(cut, target)], squared_error, params())
    assert torch.equal(found.rho_N, torch.zeros(len(x), dtype=torch.float64))
    assert torch.equal(found.delta_NOI, torch.zeros_like(found.delta_NOI))


def test_factored_is_refused_where_it_is_not_exact() -> None:
    net, x, y = LENET
    cut_model = CutModel(net, "conv2")
    with pytest.raises(UserError, match=r"factored is not exact for layer 'conv2', which sees 100 positions"):
        overfit(cut_model, lambda _s: [StepPart(cut_model.prefix((x,)), y)], cross_entropy, params(layout="factored"))
    cut_model = CutModel(net, "fc1")
    with pytest.raises(UserError, match="not exact for adam with until_converged"):
        overfit(
            cut_model,
            lambda _s: [StepPart(cut_model.prefix((x,)), y)],
            cross_entropy,
            params(layout="factored", optimizer="adam", until_converged=True),
        )


def bounded(output: Tensor, target: Tensor) -> Tensor:
    """A loss below 1 that has a gradient everywhere, so it stays finite where Δ does not."""
    error = squared_error(output, target)
    return error / (1 + error)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("layer", "layout"), [("fc1", "dense"), ("fc1", "factored"), ("conv3", "dense")])
@settings(max_examples=12)
@given(lr=st.floats(-5, 300).map(lambda e: 10**e))
def test_delta_is_finite_in_float32_or_refused(
    layer: str, layout: str, optimizer: str, precision: Any, lr: float
) -> None:
    """In every way of overfitting, and as a reader would have it."""
    net, x, _ = LENET
    x, y = x[:3], torch.zeros(3, 10)
    model = CutModel(net, layer, precision)
    # far beyond the bound of the params
    p = params(optimizer=optimizer, layout=layout, precision=precision).model_copy(update={"lr": lr})
    try:
        found = overfit(model, lambda _s: [StepPart(model.prefix((x,)), y)], bounded, p)
    except UserError as error:
        assert lr > 1e15, error  # noqa: PT017
        return
    assert lr < 1e60
    values = [found.rho_N.float(), found.loss_before_N, found.loss_after_NS]
    if found.delta_NOI is not None:
        values.append(found.delta_NOI)
    else:
        assert found.grad_u_NSO is not None
        layer_input = model.prefix((x,)).x_NPI[:, 0].numpy()
        values.append(torch.from_numpy(rebuild_delta(found.grad_u_NSO.float().numpy(), layer_input, optimizer, lr)))
    assert all(v.isfinite().all() for v in values)


def test_rho_is_infinite_where_float32_cannot_hold_the_factor() -> None:
    """ρ itself could be held: readers rebuild Δ from Σ u and x, one of them infinite."""
    rule = rules.RankOneSgd(torch.tensor([[1e-3, 0.0], [1e-3, 0.0]]), lr=1e39)
    rule(torch.tensor([[1.0, 0.0], [1e-3, 0.0]], dtype=torch.float64), torch.ones(2, 1))
    assert rule.finish(None).tolist() == [float("inf"), pytest.approx(1e33)]


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    net, x, y = LENET
    cut_model = CutModel(net, "fc1")
    bad = x.clone()
    bad[2] = float("nan")
    with pytest.raises(UserError, match="1 of 12 samples is not finite"):
        overfit(cut_model, lambda _s: [StepPart(cut_model.prefix((bad,)), y)], cross_entropy, params())


@pytest.mark.parametrize("loss", [squared_error, absolute_error])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_convolution_with_stride_padding_and_dilation_equals_the_loop(optimizer: str, loss) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(2, 3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
            nn.Tanh(),
            nn.Flatten(),
            nn.LazyLinear(2),
        )
        x, y = torch.randn(5, 2, 8, 7), torch.randn(5, 2, dtype=torch.float64)
        net(x)
    net.eval()
    p = params(optimizer=optimizer, lr=0.02)
    cut_model = CutModel(net, "2")
    expected, _ = loop(net, "2", x, y, loss, p)
    found = overfit(cut_model, lambda _step: [StepPart(cut_model.prefix((x,)), y)], loss, p)
    error = relative_error(found.delta_NOI, expected)
    assert error.median() < 1e-5
    assert error.max() < 1e-3


def test_adam_in_blocks_of_a_row_equals_whole_batches(monkeypatch) -> None:
    """Blocks only bound the temporaries; an input of exactly zero moves nothing."""
    net, x, y = LENET
    cut_model = CutModel(net, "fc1")
    cut = cut_model.prefix((x,))
    assert (cut.x_NPI == 0).any()
    p = params(optimizer="adam", lr=5e-4, steps=5)
    whole = overfit(cut_model, lambda _s: [StepPart(cut, y)], cross_entropy, p)
    monkeypatch.setattr(rules, "_BLOCK_BYTES", 1)
    out = torch.full_like(whole.delta_NOI, torch.nan)
    rows = overfit(cut_model, lambda _s: [StepPart(cut, y)], cross_entropy, p, out_NOI=out)
    assert rows.delta_NOI is out
    torch.testing.assert_close(out, whole.delta_NOI, rtol=1e-5, atol=1e-12)
    assert torch.equal(out[cut.x_NPI.expand_as(out) == 0], torch.zeros(int((cut.x_NPI.expand_as(out) == 0).sum())))
