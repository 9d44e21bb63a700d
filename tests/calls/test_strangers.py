"""Networks, losses and data as strangers bring them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ocd_core import OCD
from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.store import OverfitStore
from tests.calls.support import QUICK, cross_entropy, perceptron, points


def fitted(model: nn.Module, loss: Any, train: Any, val: Any, out: Path, layer: str = "0", **changes: Any) -> OCD:
    return OCD(model, loss, layer=layer, out=out / "mine", **{**QUICK, **changes}).fit(train, val)


def representation(ocd: OCD) -> str:
    return (ocd.artifacts.diffusion / "config.json").read_text()


class Residual(nn.Module):
    """(N, 1, 8, 8) -> (N, 2), with batch norm around its middle convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.middle = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.norm(self.middle(x))).mean((2, 3)))


class Sequences(nn.Module):
    """(N, 5) of 7 words -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(tokens)).mean(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(2, 6), nn.Linear(6, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, left: Tensor, right: Tensor, weight: float = 1.0) -> Tensor:
        return self.head(self.drop(torch.relu(self.left(left) + weight * self.right(right))))


class WithBranch(TwoInputs):
    """Not to be traced: what runs depends on the data. It gives a dict."""

    def forward(self, left: Tensor, right: Tensor) -> Any:
        hidden = self.left(left)
        if float(hidden.sum()) > 1e9:
            hidden = hidden * 0
        return {"logits": self.head(torch.relu(hidden + self.right(right))), "hidden": hidden}


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x.mean((1, 2, 3)) > 0).long()


def test_a_residual_network_with_batch_norm_moved_in_its_middle(tmp_path) -> None:
    torch.manual_seed(0)
    model = Residual()
    model(images(64)[0])  # running statistics
    ocd = fitted(model, cross_entropy, images(24), images(8, 1), tmp_path, "middle")
    assert OverfitStore(ocd.artifacts.overfit("train")).deltas().shape == (24, 4, 36)
    assert '"pca"' in representation(ocd)  # a convolution sees several positions
    x, _ = images(3, 2)
    torch.testing.assert_close(ocd.predict(x, 2).base_output.float(), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_transformer_whose_attention_projects_with_other_weights(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    model, tokens = Sequences(), torch.randint(0, 7, (24, 5))
    ocd = fitted(
        model, cross_entropy, (tokens, tokens[:, 0] % 2), (tokens[:8], tokens[:8, 0] % 2), tmp_path,
        "encoder.layers.0.self_attn.out_proj",
    )  # fmt: skip
    assert "torch.fx cannot trace Sequences" in capsys.readouterr().err
    found = ocd.predict(tokens[:3], 2)
    torch.testing.assert_close(found.base_output.float(), model.eval()(tokens[:3]), rtol=1e-4, atol=1e-5)


def test_two_inputs_as_a_tuple_and_as_keywords_of_a_network_with_dropout(tmp_path) -> None:
    torch.manual_seed(0)
    model = TwoInputs().train()
    left, right = torch.randn(20, 4), torch.randn(20, 2)
    y = (left[:, 0] > right[:, 0]).long()
    first = fitted(model, cross_entropy, ((left, right), y), ((left, right), y), tmp_path / "a", "left")
    named = {"right": right, "left": left}  # in another order
    second = fitted(model, cross_entropy, (named, y), (named, y), tmp_path / "b", "left")
    assert model.training  # as it was
    one, two = first.predict((left, right), 2), second.predict(named, 2)
    torch.testing.assert_close(one.output, two.output)
    torch.testing.assert_close(two.base_output.float(), model.eval()(left, right))
    for wrong in (left, {"left": left}):
        with pytest.raises(UserError, match="x: give a dict with right, left"):
            second.predict(wrong)


def test_a_network_that_cannot_be_traced_and_gives_a_dict(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    model, left, right = WithBranch(), torch.randn(16, 4), torch.randn(16, 2)
    y = (left[:, 0] > 0).long()
    ocd = fitted(model, lambda o, t: cross_entropy(o, t), ((left, right), y), ((left, right), y), tmp_path, "head")
    assert "it is slower" in capsys.readouterr().err
    wanted = model.eval()(left, right)["logits"]
    torch.testing.assert_close(ocd.predict((left, right)).base_output.float(), wanted)
    model.forward = lambda left, right: {"hidden": left}  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"is a dict with 'hidden', .*output=lambda"):
        fitted(model, cross_entropy, ((left, right), y), ((left, right), y), tmp_path / "other", "head")


def test_a_pretrained_transformer_with_its_tokenised_batch(tmp_path) -> None:
    """Loaded from a folder as from the hub; of its output, `logits` are taken."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "hub")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hub")
    ids = torch.randint(1, 20, (16, 5))
    batch = {"input_ids": ids, "attention_mask": (torch.arange(5) < torch.randint(2, 6, (16, 1))).long()}
    y = ids[:, 0] % 2
    ocd = fitted(model, cross_entropy, (batch, y), (batch, y), tmp_path, "classifier")
    with torch.no_grad():
        wanted = model.eval()(**batch).logits
    torch.testing.assert_close(ocd.predict(batch, 2).base_output.float(), wanted, rtol=1e-4, atol=1e-5)
    assert ocd.evaluate((batch, y), report=False).loc["bound", "loss"] < cross_entropy(wanted, y).mean()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.body(x))
        return self.a(hidden), self.b(hidden)


def test_a_regression_with_two_outputs_in_float64(tmp_path) -> None:
    def loss(output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        return sum((o - t).square().mean(1) for o, t in zip(output, target, strict=True))

    torch.manual_seed(0)
    model, x = TwoHeads().double(), torch.randn(50, 3, dtype=torch.float64)
    y = (x[:, :1], x[:, 1:] ** 2)
    ocd = fitted(model, loss, (x, y), (x[:10], tuple(t[:10] for t in y)), tmp_path, "body")
    a, b = ocd.predict(x[:4], 3).output
    assert (a.shape, b.shape) == ((4, 1), (4, 2))
    frame = ocd.evaluate((x[10:20], tuple(t[10:20] for t in y)), report=False)
    wanted = loss(model(x[10:20]), tuple(t[10:20] for t in y)).mean().item()
    assert frame.loc["base", "loss"] == pytest.approx(wanted, rel=1e-4)


def test_a_regression_of_one_tensor_has_its_metrics(tmp_path) -> None:
    x, _ = points(20)
    y, model = x[:, :2] * 3, perceptron()
    ocd = fitted(model, lambda o, t: (o - t).square().mean(1), (x, y), (x[:8], y[:8]), tmp_path)
    frame = ocd.evaluate((x, y), report=False)
    assert frame.loc["base", "rmse"] == pytest.approx((model(x) - y).square().mean().sqrt().item(), rel=1e-4)


def test_fifty_rows_with_the_usual_controls(tmp_path) -> None:
    rows = {"fit": ["mean_delta", "ridge", "ocd_gain"], "ridge": {"widths": [1.0], "penalties": [0.1]}}
    evaluated = {"rows": ["base", "ridge", "ocd", "ocd_gain", "bound"], "draws": [2], "bootstrap": 100}
    ocd = fitted(perceptron(), cross_entropy, points(50), points(10, 1), tmp_path, controls=rows, evaluate=evaluated)
    assert ocd.evaluate(points(10, 2), report=False).loc["ridge", "loss"] > 0


def test_a_deep_ensemble_of_a_given_network_is_left_out(tmp_path) -> None:
    """Its members would all be the network that was given."""
    rows = {"fit": ["deep_ensemble"], "deep_ensemble": {"members": [2], "epochs": 1}}
    evaluated = {"rows": ["base", "deep_ensemble", "ocd"], "draws": [2], "bootstrap": 100}
    ocd = fitted(perceptron(), cross_entropy, points(50), points(10, 1), tmp_path, controls=rows, evaluate=evaluated)
    assert "deep_ensemble" not in ocd.evaluate(points(10, 2), report=False).index
    (table,) = tmp_path.rglob("evaluation/table.json")
    assert "given weights" in read_json(table)["absent"][0]["why"]


def test_a_class_with_three_rows(tmp_path) -> None:
    x, _ = points(30)
    y = torch.zeros(30, dtype=torch.int64)
    y[:3] = 1
    ocd = fitted(perceptron(), cross_entropy, (x, y), (x[:6], y[:6]), tmp_path)
    frame = ocd.evaluate((x[3:9], y[3:9]), report=False)  # no row of that class
    assert frame.loc["bound", "loss"] <= frame.loc["base", "loss"]


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_networks_are_unwrapped(tmp_path, wrap) -> None:
    plain = fitted(perceptron(), cross_entropy, points(8), points(4, 1), tmp_path / "plain")
    found = fitted(wrap(perceptron()), cross_entropy, points(8), points(4, 1), tmp_path / "wrapped")
    x, _ = points(3, 2)
    assert torch.equal(found.predict(x, 2).output, plain.predict(x, 2).output)


def test_a_compiled_part_is_unwrapped_and_torchscript_is_refused(tmp_path) -> None:
    model = perceptron()
    model[0] = torch.compile(model[0], backend="eager")
    assert "layer='0'" in repr(OCD(model, cross_entropy, layer="0", out=tmp_path / "mine"))
    scripted = torch.jit.trace(perceptron(), points(2)[0])
    with pytest.raises(UserError, match="TorchScript"):
        OCD(scripted, cross_entropy, out=tmp_path / "mine")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            F.cross_entropy,
            "one number for 8 samples .a mean or a sum.; one loss per sample .*reduction='none'",
        ),
        (nn.CrossEntropyLoss(), "one number for 8 samples"),
        (lambda o, t: (o - t[:, None]).abs(), r"shape \(8, 2\) for 8 samples"),
        (lambda o, t: cross_entropy(o, t) - cross_entropy(o, t).mean(), "changes with the other samples"),
        (lambda o, t: 3.0, "returned a float"),
        (lambda o, t: cross_entropy(o, t).float(), r"in torch.float32 for an output in torch.float64; convert targets"),
        (lambda o, t: o @ t, "the loss fails on an output of shape"),
        (None, "loss: give a function"),
    ],
)
def test_a_loss_that_is_not_per_sample_says_so(tmp_path, loss, words) -> None:
    with pytest.raises(UserError, match=words):
        fitted(perceptron(), loss, points(12), points(4, 1), tmp_path)


def test_a_loss_with_weights_works_in_both_precisions(tmp_path) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), reduction="none")
    ocd = fitted(perceptron(), loss, points(8), points(4, 1), tmp_path)
    x, y = points(8)
    before = OverfitStore(ocd.artifacts.overfit("train")).read("loss_before")
    torch.testing.assert_close(
        torch.from_numpy(before).float(), loss(perceptron()(x), y).detach(), rtol=1e-4, atol=1e-6
    )


def test_boolean_targets(tmp_path) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output[:, 0], target.to(output.dtype), reduction="none")

    x, y = points(12)
    ocd = fitted(perceptron(outputs=1), loss, (x, y > 0), (x[:6], y[:6] > 0), tmp_path)
    assert torch.equal(torch.from_numpy(OverfitStore(ocd.artifacts.overfit("train")).read("target")), y.to(torch.uint8))
    frame = ocd.evaluate((x[6:], y[6:] > 0), report=False)
    assert frame.loc["bound", "loss"] < frame.loc["base", "loss"]


def test_complex_targets_are_refused_at_once(tmp_path) -> None:
    x, y = points(12)
    with pytest.raises(UserError, match="the targets are complex numbers; give real and imaginary parts"):
        fitted(perceptron(), lambda o, t: (o[:, 0] - t).abs(), (x, y + 1j), (x, y + 1j), tmp_path)


class Rows(Dataset):
    """A map-style data set that gives dicts, as those of transformers do."""

    def __init__(self, count: int, seed: int) -> None:
        self.x, self.y = points(count, seed)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input": self.x[i], "labels": self.y[i]}


class Stream(IterableDataset):
    def __iter__(self):
        yield from []


def test_data_sets_and_loaders_give_what_tensors_give(tmp_path) -> None:
    train, val = points(20), points(8, 1)
    x, _ = points(3, 2)
    tensors = fitted(perceptron(), cross_entropy, train, val, tmp_path / "a").predict(x, 2).output
    rows = TensorDataset(*train), DataLoader(TensorDataset(*val), batch_size=3)
    assert torch.equal(fitted(perceptron(), cross_entropy, *rows, tmp_path / "b").predict(x, 2).output, tensors)
    named = OCD(perceptron(), cross_entropy, layer="0", out=tmp_path / "c", workers=1, **QUICK)
    named.fit(Rows(20, 0), Rows(8, 1))
    assert torch.equal(named.predict({"input": x}, 2).output, tensors)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (Stream(), "map-style torch Dataset"),
        ((torch.zeros(3, 6), torch.zeros(4)), "different lengths .3, 4."),
        ((torch.zeros(0, 6), torch.zeros(0)), "no samples"),
        ([(torch.zeros(6), 0), (torch.zeros(5), 1)], "pad them to one shape"),
        ((torch.full((3, 6), torch.nan), torch.zeros(3, dtype=torch.int64)), "NaN"),
        ([torch.zeros(6)], "each item must be"),
        ((torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64)), "the model fails on some samples"),
        ((points(1)), "at least two samples"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path, train, words) -> None:
    with pytest.raises(UserError, match=words):
        fitted(perceptron(), cross_entropy, train, points(4, 1), tmp_path)
