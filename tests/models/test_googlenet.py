"""GoogLeNet for 32x32 images: the paper's table, the number of weights by hand, names, modes, checkpoints."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.googlenet import GoogLeNet
from ocd_core.network.cut import CutModel
from ocd_core.network.training import set_training_mode
from ocd_core.weights import load_weights

# Szegedy et al. (2015), Table 1: output channels of each inception block and, of its branches, 1x1, 3x3 after a
# reduction, 5x5 after a reduction, projection after pooling
TABLE = {
    "a3": (256, 64, (96, 128), (16, 32), 32),
    "b3": (480, 128, (128, 192), (32, 96), 64),
    "a4": (512, 192, (96, 208), (16, 48), 64),
    "b4": (512, 160, (112, 224), (24, 64), 64),
    "c4": (512, 128, (128, 256), (24, 64), 64),
    "d4": (528, 112, (144, 288), (32, 64), 64),
    "e4": (832, 256, (160, 320), (32, 128), 128),
    "a5": (832, 256, (160, 320), (32, 128), 128),
    "b5": (1024, 384, (192, 384), (48, 128), 128),
}
PIXELS = {"3": 32, "4": 16, "5": 8}  # of the blocks' outputs, for images of 32x32


def test_shapes_of_every_stage_are_those_of_the_table() -> None:
    model = GoogLeNet().eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _in, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert shapes["pre_layers"] == (192, 32, 32)
    for name, (channels, one, three, five, pool) in TABLE.items():
        pixels = (PIXELS[name[1]],) * 2
        assert shapes[name] == (channels, *pixels)
        assert channels == one + three[1] + five[1] + pool
        assert [shapes[f"{name}.b{i}"] for i in (1, 2, 3, 4)] == [(c, *pixels) for c in (one, three[1], five[1], pool)]
        assert [shapes[f"{name}.b{i}.0"][0] for i in (2, 3)] == [three[0], five[0]]
    assert shapes["avgpool"] == (1024, 1, 1)
    assert shapes["linear"] == (10,)


def test_number_of_weights_by_hand() -> None:
    def convolution(inside: int, outside: int, kernel: int) -> int:
        return (inside * kernel**2 + 1) * outside + 2 * outside  # with a bias, and batch normalisation after it

    expected, inside = convolution(3, 192, 3), 192
    for channels, one, (small, three), (smaller, five), pool in TABLE.values():
        expected += convolution(inside, one, 1) + convolution(inside, small, 1) + convolution(small, three, 3)
        expected += convolution(inside, smaller, 1) + convolution(smaller, five, 3) + convolution(five, five, 3)
        expected += convolution(inside, pool, 1)
        inside = channels
    expected += (1024 + 1) * 10
    assert sum(p.numel() for p in GoogLeNet().parameters()) == expected == 6_166_250


def test_names_are_those_of_the_usual_implementation() -> None:
    names = list(GoogLeNet(width=0.05).state_dict())
    assert names[:2] == ["pre_layers.0.weight", "pre_layers.0.bias"]
    assert [n for n in names if n.startswith("a3.b3.") and n.endswith(".weight")] == [
        f"a3.b3.{i}.weight" for i in (0, 1, 3, 4, 6, 7)
    ]
    assert [n for n in names if n.startswith("b5.b4.")] == [
        *(f"b5.b4.1.{n}" for n in ("weight", "bias")),
        *(f"b5.b4.2.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    assert names[-2:] == ["linear.weight", "linear.bias"]


def test_a_narrow_one_has_proportional_channels_and_none_without() -> None:
    model = GoogLeNet(classes=7, width=0.125, channels=1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    weights = model.state_dict()
    assert weights["pre_layers.0.weight"].shape == (24, 1, 3, 3)
    assert weights["a3.b3.3.weight"].shape == (4, 2, 3, 3)
    assert weights["linear.weight"].shape == (7, 128)
    assert all(len(t) > 0 for n, t in GoogLeNet(width=0.01).state_dict().items() if n.endswith("weight"))
    with pytest.raises(UserError, match="width above 0"):
        build_model("googlenet", {"width": 0})


def test_it_is_traced_and_the_same_in_every_memory_format() -> None:
    torch.manual_seed(0)
    model = GoogLeNet(width=0.05).eval()
    image = torch.randn(2, 3, 32, 32)
    cut = CutModel(model, "linear", "float32")
    prefix = cut.prefix((image,))
    assert cut.traced
    assert prefix.x_NPI.shape[1] == 1
    with torch.no_grad():
        contiguous = model(image)
        assert torch.allclose(model(image.contiguous(memory_format=torch.channels_last)), contiguous, atol=1e-5)
        assert torch.allclose(cut.forward(prefix)[1], contiguous, atol=1e-5)


def test_evaluation_changes_no_statistics_and_mixes_no_samples() -> None:
    torch.manual_seed(0)
    model = GoogLeNet(width=0.05)
    image = torch.randn(4, 3, 32, 32) + 1
    model.train()(image)  # statistics that are not those of a fresh network
    before = {n: t.clone() for n, t in model.state_dict().items()}
    assert before["a3.b1.1.running_mean"].abs().max() > 0
    model.eval()
    with torch.no_grad():
        together = model(image)
        alone = torch.cat([model(x[None]) for x in image])
    assert torch.allclose(together, alone, atol=1e-5)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    # a frozen body keeps its statistics while the head trains
    model.requires_grad_(False).linear.requires_grad_(True)
    set_training_mode(model)
    model(image)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.fixture
def published(tmp_path: Path) -> tuple[GoogLeNet, Path]:
    """A network, and a file of its weights with auxiliary heads, as a training loop on several GPUs would save it."""
    torch.manual_seed(1)
    source = GoogLeNet(width=0.02)
    heads = {"aux1.conv.conv.weight": torch.ones(3), "aux2.fc1.bias": torch.ones(2)}
    path = tmp_path / "published.pth"
    names = {f"module.{n}": t for n, t in {**source.state_dict(), **heads}.items()}
    torch.save({"net": names, "acc": 92.9, "epoch": 200}, path)
    return source, path


def test_a_published_checkpoint_without_its_auxiliary_heads(published: tuple[GoogLeNet, Path]) -> None:
    source, path = published
    model = GoogLeNet(width=0.02)
    load_weights(model, path)
    assert all(torch.equal(t, source.state_dict()[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module.aux3.weight": torch.ones(1)}, "unexpected aux3.weight"),
        ({"module.a3.aux1.weight": torch.ones(1)}, "unexpected a3.aux1.weight"),
        ({"module.linear.bias": torch.ones(11)}, r"of another shape linear.bias \(\(11,\) in the file, \(10,\)"),
        ({"module.b5.b1.0.bias": None}, "missing b5.b1.0.bias"),
        ({"linear.bias": torch.ones(10)}, "unexpected module.pre_layers"),
    ],
)
def test_nothing_else_of_a_checkpoint_is_ignored(
    published: tuple[GoogLeNet, Path], change: dict[str, torch.Tensor | None], message: str
) -> None:
    _, path = published
    wrapped = torch.load(path, weights_only=True)
    for name, tensor in change.items():
        if tensor is None:
            del wrapped["net"][name]
        else:
            wrapped["net"][name] = tensor
    torch.save(wrapped, path)
    with pytest.raises(UserError, match=message):
        load_weights(GoogLeNet(width=0.02), path)


def test_only_a_network_that_names_auxiliary_heads_ignores_any(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    torch.save({**model.state_dict(), "aux1.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"unexpected aux1\.weight"):
        load_weights(model, tmp_path / "w.pth")
