import copy
import math

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.tinynerf import TinyNeRF, encode
from ocd_core.network.cut import CutModel
from ocd_core.rng import torch_generator


def rays(*shape, depths=4, dtype=torch.float32, seed=0):
    generator = torch_generator(seed, "rays")
    origins, directions = (torch.randn(*shape, 3, generator=generator).to(dtype) for _ in range(2))
    z = torch.sort(torch.rand(*shape, depths, generator=generator).to(dtype) * 4 + 2).values
    return origins, directions, z


def model(seed=0, **args):
    torch.manual_seed(seed)
    return TinyNeRF(**{"width": 16, "frequencies": 3, **args}).eval()


def colour_by_hand(net, origin, direction, depths):
    """One ray in numpy float64."""
    w = {k: v.double().numpy() for k, v in net.state_dict().items()}
    light, colour = 1.0, np.zeros(3)
    for i, z in enumerate(depths):
        p = np.asarray(origin) + z * np.asarray(direction)
        h = np.concatenate([p] + [f(p * 2**k) for k in range(net.frequencies) for f in (np.sin, np.cos)])
        if net.direction_frequencies is not None:
            d = np.asarray(direction) / np.linalg.norm(direction)
            h = np.concatenate(
                [h, d] + [f(d * 2**k) for k in range(net.direction_frequencies) for f in (np.sin, np.cos)]
            )
        h = np.maximum(w["layer1.weight"] @ h + w["layer1.bias"], 0)
        h = np.maximum(w["layer2.weight"] @ h + w["layer2.bias"], 0)
        out = w["layer3.weight"] @ h + w["layer3.bias"]
        gap = depths[i + 1] - z if i + 1 < len(depths) else 1e10
        alpha = 1 - math.exp(-max(out[3], 0) * gap)
        colour += light * alpha / (1 + np.exp(-out[:3]))
        light *= 1 - alpha
    return colour + net.background * light


def test_encoding_keeps_the_released_order():
    x, y, z = 0.1, -0.4, 0.9
    found = encode(torch.tensor([x, y, z], dtype=torch.float64), 2).tolist()
    expected = [
        x, y, z, *(math.sin(v) for v in (x, y, z)), *(math.cos(v) for v in (x, y, z)),
        *(math.sin(2 * v) for v in (x, y, z)), *(math.cos(2 * v) for v in (x, y, z)),
    ]  # fmt: skip
    assert found == pytest.approx(expected)


def test_default_layers_are_the_released_ones():
    shapes = {k: tuple(v.shape) for k, v in build_model("tinynerf", {}).state_dict().items()}
    assert shapes == {
        "layer1.weight": (128, 63), "layer1.bias": (128,), "layer2.weight": (128, 128), "layer2.bias": (128,),
        "layer3.weight": (4, 128), "layer3.bias": (4,),
    }  # fmt: skip


@pytest.mark.parametrize("args", [{}, {"background": "white"}, {"direction_frequencies": 2}])
def test_colours_match_a_ray_by_ray_computation(args):
    net = model(**args).double()
    origins, directions, depths = rays(2, 3, dtype=torch.float64)
    out = net(origins, directions, depths)
    assert out.shape == (2, 3, 3)
    for n in range(2):
        for r in range(3):
            by_hand = colour_by_hand(net, origins[n, r].tolist(), directions[n, r].tolist(), depths[n, r].tolist())
            assert out[n, r].tolist() == pytest.approx(by_hand.tolist(), abs=1e-10)


def test_ray_axes_of_a_picture_give_the_same_colours():
    net = model()
    origins, directions, depths = rays(2, 6)
    flat = net(origins, directions, depths)
    picture = net(*(t.reshape(2, 2, 3, -1) for t in (origins, directions, depths)))
    torch.testing.assert_close(picture.reshape(2, 6, 3), flat)


def test_depth_weights_are_those_of_the_rendering():
    net = model()
    inputs = rays(2, 5)
    weights = net.depth_weights(*inputs)
    field = net.field(*inputs)
    assert weights.shape == (2, 5, 4)
    expected = (weights[..., None] * torch.sigmoid(field[..., :3])).sum(-2)
    torch.testing.assert_close(expected, net(*inputs))


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
@pytest.mark.parametrize("args", [{}, {"direction_frequencies": 1, "background": "white"}])
def test_split_at_each_layer_without_running_the_prefix_again(layer, args):
    net = model(**args)
    split = CutModel(net, layer)
    assert split.traced
    inputs = rays(2, 3)
    cut = split.prefix(inputs)
    out_features, in_features = split.weight_OI.shape
    assert cut.x_NPI.shape == (2, 3 * 4, in_features)
    delta = torch.randn(2, out_features, in_features, generator=torch_generator(1, "delta")) * 0.1
    activation, found = split.forward(cut, delta)
    assert activation.shape == (2, 3, 4, out_features)
    assert (layer == "layer3") == bool((activation < 0).any())  # after the ReLU where there is one
    for n in range(2):
        changed = copy.deepcopy(net)
        with torch.no_grad():
            getattr(changed, layer).weight += delta[n]
        expected = changed(*(t[n : n + 1] for t in inputs))
        torch.testing.assert_close(found[n].float(), expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("args", [{"background": "grey"}, {"width": 0}, {"frequencies": -1}, {"depth": 3}])
def test_impossible_arguments(args):
    with pytest.raises(UserError, match="tinynerf"):
        build_model("tinynerf", args)
