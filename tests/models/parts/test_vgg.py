import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ocd_core.errors import UserError
from ocd_core.models.parts.vgg import VGG11Features, load_vgg11_features, pooled_features
from ocd_core.rng import torch_generator

# where published VGG11 weights keep the eight convolutions, and their (out, in) channels
CONVOLUTIONS = {
    0: (64, 3), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512), 16: (512, 512),
    18: (512, 512),
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return VGG11Features().eval()


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch_generator(seed, "image"))


def test_parameters_are_named_and_shaped_as_published(net):
    expected = {f"features.{n}.weight": (o, i, 3, 3) for n, (o, i) in CONVOLUTIONS.items()}
    expected |= {f"features.{n}.bias": (o,) for n, (o, _) in CONVOLUTIONS.items()}
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == expected
    assert sum(p.numel() for p in net.parameters()) == 9_220_480


def test_features_are_convolutions_relus_and_poolings_of_normalised_colours(net):
    x = image(2, 3, 64, 96)
    weights = net.state_dict()
    h = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for n in CONVOLUTIONS:
        h = F.relu(F.conv2d(h, weights[f"features.{n}.weight"], weights[f"features.{n}.bias"], padding=1))
        if n in (0, 3, 8, 13, 18):
            h = F.max_pool2d(h, 2)
    assert h.shape == (2, 512, 2, 3)
    torch.testing.assert_close(net(x), h)


def test_pooled_features_take_small_pictures(net):
    assert pooled_features(net, image(2, 3, 16, 16)).shape == (2, 2048)
    x = image(1, 3, 64, 64)
    torch.testing.assert_close(pooled_features(net, x), net(x).flatten(1))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_load_from_a_whole_vgg11(net, tmp_path, suffix):
    weights = {**net.state_dict(), "classifier.0.weight": torch.zeros(4, 4)}
    path = tmp_path / f"vgg11.{suffix}"
    if suffix == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    loaded = load_vgg11_features(path)
    x = image(1, 3, 64, 64)
    assert torch.equal(loaded(x), net(x))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training


@pytest.mark.parametrize("name", ["vgg11", "vgg11.pth"])
def test_safetensors_load_under_any_name(net, tmp_path, name):
    """A bundle keeps the weights without a suffix."""
    save_file(net.state_dict(), tmp_path / name)
    loaded = load_vgg11_features(tmp_path / name)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_wrong_files_are_named(net, tmp_path):
    with pytest.raises(UserError, match="do not exist"):
        load_vgg11_features(tmp_path / "none.pth")
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"cannot read.*garbage\.pth"):
        load_vgg11_features(garbage)
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(3, 3)}, other)
    with pytest.raises(UserError, match=r"other\.safetensors does not hold"):
        load_vgg11_features(other)
