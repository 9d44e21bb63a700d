"""The distilled DeiT against the library's own network; published weights; which layers can move."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.deit import DeiT
from ocd_core.network.adapting import moved_parameters
from ocd_core.network.cut import CutModel
from ocd_core.network.training import set_training_mode
from ocd_core.overfit.steps import Overfitted, StepPart, overfit
from tests.support.params import overfit_params

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {"hidden": 16, "layers": 2, "heads": 2, "patch": 8, "image": 32}
HEADS = "cls_classifier+distillation_classifier"
QUERY = "body.transformer.layers.1.attention.q_proj"
KEYS = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "patch": "patch_size",
    "image": "image_size",
}  # fmt: skip


def library_network(classes: int, **changes: Any) -> Any:
    """The library's network with random weights everywhere (its own start has zeros)."""
    values = {KEYS[key]: value for key, value in SIZES.items()} | {"intermediate_size": 64, "num_labels": classes}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**(values | changes)))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def published(folder: Path, classes: int = 7, **changes: Any) -> str:
    library_network(classes, **changes).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return published(tmp_path_factory.mktemp("deit"))


def loaded(source: str, classes: int = 7, **more: Any) -> DeiT:
    model = build_model("deit", {"classes": classes, "source": source, **SIZES, **more})
    assert isinstance(model, DeiT)
    model.load_pretrained()
    return model.eval()


def images(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_output_is_that_of_the_library(source: str) -> None:
    model = DeiT(7, source, **SIZES)
    assert model.load_pretrained() == []
    torch.testing.assert_close(model.eval()(images()), library_network(7)(images()).logits, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 48])
def test_images_of_another_size_are_resized_as_pillow_does(source: str, size: int) -> None:
    from PIL import Image

    x = images(2, size)
    planes = [Image.fromarray(p.numpy()).resize((32, 32), Image.Resampling.BICUBIC) for p in x.flatten(0, 1)]
    resized = torch.stack([torch.from_numpy(np.array(plane)) for plane in planes]).view(2, 3, 32, 32)
    wanted = library_network(7)(resized).logits
    torch.testing.assert_close(loaded(source)(x), wanted, rtol=1e-4, atol=1e-5)


def test_fresh_weights_are_a_function_of_the_seed_and_tell_the_tokens_apart() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(DeiT(5, **SIZES).state_dict())
    assert all(torch.equal(made[0][name], value) for name, value in made[1].items())
    tokens = [f"body.transformer.embeddings.{name}_token" for name in ("cls", "distillation")]
    assert not torch.equal(made[0][tokens[0]], made[0][tokens[1]])
    assert not torch.equal(made[0][tokens[0]], made[2][tokens[0]])


def test_the_default_is_deit_b_16() -> None:
    with torch.device("meta"):
        model = DeiT(1000)
    assert sum(p.numel() for p in model.parameters()) == 87_338_192  # of deit_base_distilled_patch16_224


# --- published weights


def test_heads_of_other_classes_are_replaced_and_named(source: str) -> None:
    torch.manual_seed(5)
    model = DeiT(4, source, **SIZES)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    (note,) = model.load_pretrained()
    assert "cls_classifier and distillation_classifier (of 7 classes) were replaced by fresh ones of 4 classes" in note
    body = library_network(7).deit.state_dict()
    for name, value in model.state_dict().items():
        expected = fresh[name] if name.startswith(("cls", "dist")) else body[name.removeprefix("body.transformer.")]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 32}, r"has hidden_size 16, not 32; set base\.model\.args\.hidden to it"),
        ({"layers": 3}, r"has num_hidden_layers 2, not 3; set base\.model\.args\.layers"),
        ({"patch": 16}, r"has patch_size 8, not 16; set base\.model\.args\.patch"),
    ],
)
def test_another_architecture_is_refused(source: str, change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=r"base\.model\.args\.source: .*" + message):
        loaded(source, **change)


def test_what_the_network_does_not_support_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has hidden_act relu, not gelu; which this network does not support"):
        loaded(published(tmp_path, hidden_act="relu"))


def test_a_network_of_another_kind_is_refused(tmp_path: Path, source: str) -> None:
    shutil.copytree(source, tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(UserError, match="is a vit, not a deit"):
        loaded(str(tmp_path / "vit"))


def test_a_network_with_one_head_is_refused(tmp_path: Path, source: str) -> None:
    config = library_network(7).config
    transformers.DeiTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"not a distilled DeiT with two heads: missing cls_classifier.* unexpected"):
        loaded(str(tmp_path))


def test_pickled_weights_are_never_read(tmp_path: Path, source: str) -> None:
    shutil.copy(Path(source) / "config.json", tmp_path)
    torch.save(library_network(7).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"cannot load .*folder") as error:
        loaded(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_folder_that_is_missing() -> None:
    with pytest.raises(UserError, match=r"base\.model\.args\.source: there is no folder \./nowhere"):
        loaded("./nowhere")


def test_a_hub_id_without_the_network_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    model = DeiT(4, "facebook/deit-base-distilled-patch16-224", **SIZES)  # building it needs no source
    with pytest.raises(UserError, match="hub id; it needs the network or the hub's cache") as error:
        model.load_pretrained()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"classes": 0}, "at least 1"), ({"heads": 3}, "multiple of heads"), ({"patch": 5}, "multiple of patch")],
)
def test_impossible_sizes(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model("deit", {"classes": 2, **SIZES, **change})


# --- what is trained, what moves


def test_a_frozen_body_stays_as_it_is() -> None:
    model = DeiT(4, **SIZES, frozen_body=True)
    set_training_mode(model)
    assert not model.body.training
    assert model.training
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{head}.{part}" for head in HEADS.split("+") for part in ("weight", "bias")}


def test_tent_moves_layer_norms_or_the_heads_biases() -> None:
    moved = moved_parameters(DeiT(4, **SIZES))
    assert moved.of_normalisation
    assert all("layernorm" in name for name in moved.names)
    assert len(moved.names) == 2 * (2 * SIZES["layers"] + 1)
    frozen = moved_parameters(DeiT(4, **SIZES, frozen_body=True))
    assert not frozen.of_normalisation
    assert set(frozen.names) == {f"{head}.bias" for head in HEADS.split("+")}


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def overfitted(model: DeiT, layer: str, x: Tensor, target: Tensor) -> tuple[CutModel, Overfitted]:
    cut_model = CutModel(model, layer)
    part = StepPart(cut_model.prefix((x,)), target)
    return cut_model, overfit(cut_model, lambda _step: [part], cross_entropy, overfit_params(lr=0.1, steps=3))


def by_hand(model: DeiT, layer: str, x: Tensor, target: Tensor) -> list[Tensor]:
    """Δ of each sample from three SGD steps of a float64 copy of the whole network."""
    found = []
    for i in range(len(x)):
        single = copy.deepcopy(model).double().requires_grad_(False)
        weights = [single.get_submodule(name).weight.requires_grad_() for name in layer.split("+")]
        before = [w.detach().clone() for w in weights]
        optimiser = torch.optim.SGD(weights, lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            cross_entropy(single(x[i : i + 1].double()), target[i : i + 1]).sum().backward()
            optimiser.step()
        found.append(torch.cat([w.detach() - b for w, b in zip(weights, before, strict=True)]))
    return found


@pytest.mark.parametrize("layer", ["cls_classifier", "distillation_classifier", HEADS])
def test_heads_move_and_the_body_runs_once(source: str, layer: str) -> None:
    model, x, target = loaded(source), images(4, 16), torch.tensor([0, 3, 1, 6])
    seen: list[int] = []
    model.body.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    cut_model, found = overfitted(model, layer, x, target)
    assert cut_model.traced
    passes = len(seen)  # of the comparison of the trace, and one
    cut_model.prefix((x,))
    assert seen[passes:] == [4]
    for delta, wanted in zip(found.delta_NOI, by_hand(model, layer, x, target), strict=True):
        torch.testing.assert_close(delta.double(), wanted, rtol=1e-4, atol=1e-6)


def test_a_query_projection_moves(source: str) -> None:
    """The library's attention cannot be traced, so that the whole network runs in every step, with the same result."""
    model, x, target = loaded(source), images(3, 16), torch.tensor([0, 3, 1])
    cut_model, found = overfitted(model, QUERY, x, target)
    assert not cut_model.traced
    assert cut_model.prefix((x,)).x_NPI.shape == (3, 16 + 2, 16)  # every patch and both tokens
    assert bool((found.loss_after_NS[:, -1] < found.loss_before_N).all())
    for delta, wanted in zip(found.delta_NOI, by_hand(model, QUERY, x, target), strict=True):
        torch.testing.assert_close(delta.double(), wanted, rtol=1e-3, atol=1e-6)
