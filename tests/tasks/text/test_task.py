"""The domain text: what is prepared and by which rows, the network that starts as its head, Δ by plain autograd."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ocd_core.artifacts import write_json
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.samples import SPLITS, whole_split
from ocd_core.tasks.text.encoder import load_encoder
from ocd_core.testing import check_task
from ocd_core.weights import read_tensors, save_tensors
from tests.support.texts import LIMIT, WIDTH, text_task, write_rows, write_texts

TUNE = {"method": "setfit", "iterations": 1, "epochs": 1, "batch_size": 4, "lr": 1e-2}


def texts_of(prepared: Path, split: str) -> list[str]:
    return [json.loads(line)["text"] for line in (prepared / f"{split}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("method", ["none", "setfit"])
def test_it_keeps_the_protocol(folder: Path, encoder: Path, tmp_path: Path, method: str) -> None:
    example = tmp_path / "one.txt"
    example.write_text("a good word\n", encoding="utf-8")
    check_task(text_task(folder, encoder, finetune={**TUNE, "method": method}), tmp_path / "check", example=example)


def test_what_is_prepared(folder: Path, encoder: Path, tmp_path: Path) -> None:
    domain = text_task(folder, encoder)
    summary = domain.prepare(tmp_path)
    assert summary["splits"] == {
        "train": {"samples": 6, "taken_from": "train"},
        "val": {"samples": 2, "taken_from": "train"},
        "test": {"samples": 6, "taken_from": "test"},
    }
    assert (summary["features"], summary["classes"], summary["max_tokens"]) == (WIDTH, 2, LIMIT)
    assert summary["shared_rows"] == {"train/val": 0, "train/test": 0, "val/test": 0}
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    reference = load_encoder(str(encoder), None)
    for split in SPLITS:
        tensors = read_tensors(tmp_path / f"{split}.safetensors")
        texts = texts_of(tmp_path, split)
        # the embeddings are those of the library, in one call
        expected = torch.from_numpy(reference.encode(texts))
        torch.testing.assert_close(tensors["embedding"], expected, rtol=1e-5, atol=1e-6)
        if split != "test":
            found = [rows[i] for i in tensors["source_row"].tolist()]
            assert [(r["text"], r["label"]) for r in found] == list(zip(texts, tensors["label"].tolist(), strict=True))
            assert torch.bincount(tensors["label"]).tolist() == [3, 3] if split == "train" else [1, 1]
    assert not set(texts_of(tmp_path, "train")) & set(texts_of(tmp_path, "val"))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["encoder.json", *(f"{s}.{kind}" for s in SPLITS for kind in ("jsonl", "safetensors"))]
    )


def test_texts_are_shown_by_their_row_whatever_line_breaks_they_hold(
    folder: Path, encoder: Path, tmp_path: Path
) -> None:
    breaks = ["\u2028", "\u2029", "\x85", "\r", "\x0b", "\n"]
    texts = [f"good{mark}word {i}" for i, mark in enumerate(breaks)]
    write_rows(folder / "test.jsonl", [{"text": text, "label": i % 2} for i, text in enumerate(texts)])
    domain = text_task(folder, encoder)
    domain.prepare(tmp_path)
    rows = read_tensors(tmp_path / "test.safetensors")["source_row"].tolist()
    assert sorted(rows) == list(range(6))
    assert domain.shown(tmp_path, "test", range(6)) == [texts[row] for row in rows]


def test_a_draw_is_the_shots_and_the_test_subset_stays(folder: Path, encoder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        text_task(folder, encoder, split_seed=seed, test_size=4).prepare(tmp_path / str(seed))
    first, second = ({s: texts_of(tmp_path / seed, s) for s in SPLITS} for seed in ("0", "1"))
    assert first["train"] != second["train"]
    assert first["test"] == second["test"]
    assert len(first["test"]) == 4


def test_no_text_is_encoded_twice(folder: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    write_texts(folder / "train.jsonl", [0, 1] * 4)  # all of them are shots
    write_texts(folder / "test.jsonl", [0, 1] * 4)  # and the same texts
    seen: list[str] = []
    encode = SentenceTransformer.encode

    def counted(self: Any, texts: list[str], **more: Any) -> Any:
        seen.extend(texts)
        return encode(self, texts, **more)

    monkeypatch.setattr(SentenceTransformer, "encode", counted)
    domain = text_task(folder, encoder)
    summary = domain.prepare(tmp_path)
    assert len(seen) == len(set(seen)) == 8
    assert summary["shared_rows"]["train/test"] == 6
    domain.bind(tmp_path)
    whole = [split.batch(whole_split(split)) for split in (domain.open(tmp_path, name) for name in SPLITS)]
    assert len(seen) == 8
    assert [len(batch) for batch in whole] == [6, 2, 8]


def test_only_training_texts_tune_the_encoder(
    folder: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from setfit import Trainer

    seen: list[str] = []
    train = Trainer.train_embeddings

    def spied(self: Any, texts: list[str], *more: Any, **others: Any) -> None:
        seen.extend(texts)
        train(self, texts, *more, **others)

    monkeypatch.setattr(Trainer, "train_embeddings", spied)
    domain = text_task(folder, encoder, finetune=TUNE)
    domain.prepare(tmp_path / "tuned")
    text_task(folder, encoder).prepare(tmp_path / "plain")
    assert seen == texts_of(tmp_path / "tuned", "train") == texts_of(tmp_path / "plain", "train")
    tuned, plain = (read_tensors(tmp_path / k / "test.safetensors")["embedding"] for k in ("tuned", "plain"))
    assert not torch.allclose(tuned, plain, atol=1e-3)
    # a new text goes through the tuned encoder, which was kept
    domain.bind(tmp_path / "tuned")
    (tmp_path / "new.txt").write_text(texts_of(tmp_path / "tuned", "test")[2], encoding="utf-8")
    torch.testing.assert_close(domain.read_input(tmp_path / "new.txt")[0][0], tuned[2], rtol=1e-4, atol=1e-5)


def test_cut_texts_are_counted_and_stated(folder: Path, encoder: Path, tmp_path: Path) -> None:
    texts = ["a " * 40 + "good", "b", "a " * 10]  # 43, 3 and 12 tokens with [CLS] and [SEP]
    write_rows(folder / "test.jsonl", [{"text": text, "label": 0} for text in texts])
    for limit, cut in ((None, 1), (6, 2)):
        domain = text_task(folder, encoder, max_tokens=limit)
        summary = domain.prepare(tmp_path / str(limit))
        assert summary["cut"]["test"] == cut
        domain.bind(tmp_path / str(limit))
        encoder_words, cut_words = domain.remarks()
        assert encoder_words == f"Encoder: {encoder}, as it is."
        assert cut_words.startswith(f"Texts are cut after {limit or LIMIT} tokens: ")
        assert cut_words.endswith(f"{cut} of test.")


def prepared_task(folder: Path, encoder: Path, dest: Path, **changes: Any) -> Any:
    domain = text_task(folder, encoder, **changes)
    domain.prepare(dest)
    domain.bind(dest)
    return domain


def test_the_network_is_its_head_until_dense_moves(folder: Path, encoder: Path, tmp_path: Path) -> None:
    domain = prepared_task(folder, encoder, tmp_path)
    model = domain.build_model()
    torch.nn.init.normal_(model.head.weight)
    split = domain.open(tmp_path, "train")
    (embedding,) = split.batch(whole_split(split)).inputs
    torch.testing.assert_close(model(embedding), model.head(embedding))
    assert model.dense.weight.shape == (WIDTH, WIDTH)


def test_factored_deltas_are_those_of_a_plain_loop(folder: Path, encoder: Path, tmp_path: Path) -> None:
    domain = prepared_task(folder, encoder, tmp_path)
    torch.manual_seed(0)
    model = domain.build_model().eval()
    torch.nn.init.normal_(model.head.weight)
    split = domain.open(tmp_path, "train")
    batch = split.batch(whole_split(split))
    params = overfit_params(lr=0.5, steps=3)
    cut_model = CutModel(model, "dense")
    part = StepPart(cut_model.prefix(batch.inputs), batch.target)
    result = overfit(cut_model, lambda _step: [part], domain.loss, params)
    assert result.grad_u_NSO is not None
    found = -params.lr * result.grad_u_NSO.sum(1)[:, :, None] * batch.inputs[0].double()[:, None, :]
    for i in range(len(batch)):
        network = domain.build_model().double()
        network.load_state_dict(model.state_dict())
        start = network.dense.weight.detach().clone()
        for _ in range(params.steps):
            loss = F.cross_entropy(network(batch.inputs[0][i : i + 1].double()), batch.target[i : i + 1])
            (gradient,) = torch.autograd.grad(loss, network.dense.weight)
            network.dense.weight.data -= params.lr * gradient
        torch.testing.assert_close(found[i], network.dense.weight.detach() - start, rtol=1e-5, atol=1e-9)


def overfit_params(**changes: Any) -> OverfitParams:
    values: dict[str, Any] = {
        "optimizer": "sgd",
        "lr": 0.1,
        "steps": 3,
        "until_converged": False,
        "tolerance": 1e-3,
        "replicas": 1,
        "precision": "float64",
        "layout": "factored",
        "refine": NOT_REFINED,
        "memory_mb": 64,
        "shard_mb": 8,
    }
    return OverfitParams.model_validate(values | changes)


def test_the_condition_is_the_embedding_alone(folder: Path, encoder: Path, tmp_path: Path) -> None:
    domain = prepared_task(folder, encoder, tmp_path)
    split = domain.open(tmp_path, "val")
    batch = split.batch(whole_split(split))
    x = batch.inputs[0]
    found = domain.condition(batch, x, x + 1, torch.zeros(len(x), 2))
    assert torch.equal(found.layer_input, x)
    assert [part.shape for part in found.parts()[1:]] == [(len(x), 0)] * 2


@pytest.mark.parametrize(("headline", "order"), [("accuracy", ["accuracy", "mcc"]), ("mcc", ["mcc", "accuracy"])])
def test_the_headline_stands_first_after_the_loss(tmp_path: Path, headline: str, order: list[str]) -> None:
    names = [m.name for m in text_task(tmp_path, "minilm", headline=headline).metrics]
    assert names == ["cross_entropy", *order, "brier", "ece", "auroc_wrong"]


def test_damaged_artifacts_are_refused(folder: Path, encoder: Path, tmp_path: Path) -> None:
    domain = prepared_task(folder, encoder, tmp_path)
    with pytest.raises(UserError, match=r"train\.safetensors is missing; run the stage prepare first"):
        domain.open(tmp_path / "nowhere", "train")
    save_tensors({"embedding": torch.zeros(3, WIDTH + 1), "label": torch.zeros(3).long()}, tmp_path / "val.safetensors")
    with pytest.raises(UserError, match="does not hold embedded texts with labels; run the stage prepare again"):
        domain.open(tmp_path, "val")
    write_json(tmp_path / "encoder.json", {"features": 3})
    with pytest.raises(UserError, match="does not describe prepared texts"):
        domain.bind(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"  \n", "is empty"), (b"caf\xe9", "not a readable text file in UTF-8"), (None, "not a readable text file")],
)
def test_files_that_are_not_one_text(
    folder: Path, encoder: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "one.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        text_task(folder, encoder).read_input(tmp_path / "one.txt")


@pytest.mark.parametrize("method", ["none", "setfit"])
def test_what_travels_reads_texts_elsewhere(folder: Path, encoder: Path, tmp_path: Path, method: str) -> None:
    """With the encoder's own folder gone, whether it was fine-tuned or only lay on this machine."""
    own = shutil.copytree(encoder, tmp_path / "own")
    finetune = {**TUNE, "method": method}
    domain = text_task(folder, own, finetune=finetune)
    domain.prepare(tmp_path / "prepared")
    domain.bind(tmp_path / "prepared")
    (tmp_path / "one.txt").write_text("a good word\n", encoding="utf-8")
    (wanted,) = domain.read_input(tmp_path / "one.txt")
    for name, source in domain.travelling(tmp_path / "prepared").items():
        dest = tmp_path / "elsewhere" / name
        dest.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, dest)
    shutil.rmtree(own)
    shutil.rmtree(tmp_path / "prepared")
    there = text_task(folder, own, finetune=finetune)
    there.bind(tmp_path / "elsewhere")
    assert torch.equal(there.read_input(tmp_path / "one.txt")[0], wanted)
    assert there.build_model().state_dict().keys() == domain.build_model().state_dict().keys()


def test_an_encoder_with_a_name_travels_by_its_name(folder: Path, tmp_path: Path) -> None:
    for name in ("minilm", "owner/name"):
        assert set(text_task(folder, name).travelling(tmp_path)) == {"encoder.json"}


def test_nothing_is_left_of_a_prepare_that_fails(folder: Path, encoder: Path, tmp_path: Path) -> None:
    """Everything is checked before the first file is written."""
    write_texts(folder / "test.jsonl", [0, 2])
    dest = tmp_path / "dest"
    dest.mkdir()
    with pytest.raises(UserError, match=r"label 2 in row 1 is outside 0\.\.1, the classes of the train part"):
        text_task(folder, encoder).prepare(dest)
    assert not list(dest.iterdir())


def test_a_real_set_with_the_real_encoder(shared_data: Path, tmp_path: Path) -> None:
    values = {"shots": 8, "val_shots": 2, "test_size": 20}
    domain = text_task(shared_data / "cr", "minilm", **values)
    summary = domain.prepare(tmp_path)
    assert (summary["features"], summary["classes"]) == (384, 2)
    assert [summary["splits"][s]["samples"] for s in SPLITS] == [12, 4, 20]
    tensors = read_tensors(tmp_path / "test.safetensors")
    torch.testing.assert_close(tensors["embedding"].norm(dim=1), torch.ones(20))
    expected = torch.from_numpy(load_encoder("minilm", None).encode(texts_of(tmp_path, "test")))
    torch.testing.assert_close(tensors["embedding"], expected, rtol=1e-4, atol=1e-5)
