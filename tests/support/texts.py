"""Labelled texts in files, and a sentence encoder with random weights that needs no download and little time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ocd_core.tasks.text.params import TextData
from ocd_core.tasks.text.task import TextClassification

WIDTH = 16
LIMIT = 24  # tokens
GOOD, BAD = ["good", "fine", "great", "nice"], ["bad", "poor", "weak", "awful"]


def sentence(label: int, number: int) -> str:
    """A text that no other pair of arguments gives; its words tell the label."""
    words = (GOOD, BAD)[label % 2]
    return " ".join([words[number % 4], "word" * (label // 2 + 1), *("abcdefghij"[int(d)] for d in str(number))])


def write_texts(path: Path, labels: Sequence[Any], start: int = 0) -> list[str]:
    """JSON lines with text and label; returns the texts."""
    texts = [sentence(label if isinstance(label, int) else 0, start + i) for i, label in enumerate(labels)]
    write_rows(path, [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)])
    return texts


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_encoder(folder: Path) -> Path:
    """A BERT of one layer with random weights and mean pooling, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    bert = folder.with_name(f"{folder.name}-bert")
    bert.mkdir(parents=True)
    words = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), *GOOD, *BAD, "word"]
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    tokenizer = BertTokenizer(str(bert / "vocab.txt"), model_max_length=LIMIT)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LIMIT,
        initializer_range=0.5,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    body = Transformer(str(bert), max_seq_length=LIMIT)
    SentenceTransformer(modules=[body, Pooling(WIDTH)], device="cpu").save_pretrained(
        str(folder), create_model_card=False
    )
    return folder


def text_values(folder: Path, encoder: Path | str, **changes: Any) -> dict[str, Any]:
    """The group `data` of files train.jsonl and test.jsonl in a folder."""
    values: dict[str, Any] = {
        "path": str(folder),
        "train_files": ["train.jsonl"],
        "test_files": ["test.jsonl"],
        "text_column": "text",
        "label_column": "label",
        "shots": 4,
        "val_shots": 1,
        "test_size": None,
        "split_seed": 0,
        "encoder": str(encoder),
        "max_tokens": None,
        "finetune": {"method": "none", "iterations": 1, "epochs": 1, "batch_size": 4, "lr": 1e-3},
        "headline": "accuracy",
    }
    return values | changes


def text_task(folder: Path, encoder: Path | str, **changes: Any) -> TextClassification:
    return TextClassification(TextData.model_validate(text_values(folder, encoder, **changes)), "setfit_head", {})
