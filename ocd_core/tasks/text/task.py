"""Few-shot text classification: a sentence encoder, SetFit's head, and 8 labelled texts of each class.

`prepare` draws the shots, fine-tunes the encoder on them if asked to, and encodes every text once. All later stages see
embeddings alone.

Dims: N samples, D features of an embedding, K networks of an ensemble.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ocd_core.artifacts import read_json, write_json, write_text
from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.models import build_model
from ocd_core.samples import Batch, Condition, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric
from ocd_core.tasks.classification import Classification, matthews
from ocd_core.tasks.overlap import SHARED_ROWS, shared_rows
from ocd_core.tasks.prepared import need_file, split_file, split_tensors
from ocd_core.tasks.text.encoder import count_cut, encode, finetune, load_encoder, own_folder
from ocd_core.tasks.text.params import TextData
from ocd_core.tasks.text.sources import Texts, check_labels, few_shots, read_texts, subset_of_test
from ocd_core.weights import save_tensors

ABOUT = "encoder.json"  # what later stages must know of the encoder
TUNED = "encoder"  # the folder of a fine-tuned encoder


@dataclass(frozen=True)
class EmbeddedTexts:
    """One split. embedding_ND: float32. label_N: int64."""

    embedding_ND: Tensor
    label_N: Tensor

    def __len__(self) -> int:
        return len(self.label_N)

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order: input float32 (N, D), target int64 (N,)."""
        return Batch((self.embedding_ND[sample_id],), self.label_N[sample_id], sample_id)


class TextClassification(Classification):
    """Inputs: embeddings, float32 (N, D). Outputs: logits (N, classes). Targets: int64 (N,).

    The base network is built with `features` (D) and `classes`, which the prepared data holds, and the params' own
    arguments.
    """

    Data: ClassVar[type[StrictModel]] = TextData
    data: TextData
    _prepared: Path | None = None
    _about: dict[str, Any] | None = None

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write one safetensors file and one JSON-lines file per split, `encoder.json`, and a fine-tuned encoder.

        The tensors are embedding float32 (N, D), label int64, source_row int64 (the row in the part of the source);
        the lines are the texts with their labels, for people.

        Returns the source, its files and licence, the encoder, the classes, the samples of each split, how many of its
        texts are cut, and how many texts occur in two splits.

        Raises:
            UserError: the raw data or the encoder is missing or not as the params say.
        """
        data = self.data
        parts, origin = read_texts(
            data.path, {"train": data.train_files, "test": data.test_files}, data.text_column, data.label_column
        )
        splits = self._divided(parts)
        classes = int(parts["train"].label_N.max()) + 1
        encoder = load_encoder(data.encoder, data.max_tokens)
        if data.finetune.method == "setfit":
            train = splits["train"]
            finetune(encoder, train.texts, train.label_N, data.finetune, data.split_seed)
            encoder.save_pretrained(str(dest / TUNED), create_model_card=False)
        known: dict[str, Tensor] = {}
        for split, chosen in splits.items():
            tensors = {
                "embedding": encode(encoder, chosen.texts, known, split),
                "label": chosen.label_N,
                "source_row": chosen.source_row_N,
            }
            save_tensors(tensors, split_file(dest, split))
            write_text(dest / f"{split}.jsonl", _lines(chosen))
        cut = {split: count_cut(encoder, chosen.texts) for split, chosen in splits.items()}
        about = {
            "features": len(next(iter(known.values()))),
            "classes": classes,
            "max_tokens": encoder.max_seq_length,
            "cut": cut,
        }
        write_json(dest / ABOUT, about)
        hashes = {split: [_hashes(text) for text in chosen.texts] for split, chosen in splits.items()}
        return {
            "source": data.path,
            "licence": origin.licence,
            "files": origin.files,
            "encoder": data.encoder,
            "finetune": data.finetune.method,
            **about,
            "splits": {
                split: {"samples": len(chosen), "taken_from": "test" if split == "test" else "train"}
                for split, chosen in splits.items()
            },
            SHARED_ROWS: shared_rows(hashes),
        }

    def _divided(self, parts: dict[str, Texts]) -> dict[SplitName, Texts]:
        """Train, val and test; train and val are the shots, and no other row of the train part is used."""
        data = self.data
        train, test = parts["train"], parts["test"]
        where = f"{data.path}, train part"
        train_rows, val_rows = few_shots(train.label_N, data.shots, data.val_shots, data.split_seed, where)
        check_labels(test.label_N, int(train.label_N.max()) + 1, f"{data.path}, test part")
        chosen = subset_of_test(len(test), data.test_size, f"{data.path}, test part")
        return {"train": train.select(train_rows), "val": train.select(val_rows), "test": test.select(chosen)}

    def bind(self, prepared: Path) -> None:
        """Read the number of features and classes.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = prepared / ABOUT
        about = read_json(path)
        if not isinstance(about, dict) or not {"features", "classes", "max_tokens", "cut"} <= about.keys():
            raise UserError(f"{path} does not describe prepared texts; run the stage prepare again")
        self._prepared, self._about = prepared, about

    def travelling(self, prepared: Path) -> dict[str, Path]:
        """The widths, and the encoder if it is a folder here; otherwise its name in the params is enough."""
        tuned = self.data.finetune.method != "none"
        folder = prepared / TUNED if tuned else own_folder(self.data.encoder)
        found = {ABOUT: prepared / ABOUT}
        if folder is not None:
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            found |= {f"{TUNED}/{path.relative_to(folder).as_posix()}": path for path in files}
        return found

    @property
    def about(self) -> dict[str, Any]:
        """What `prepare` wrote of the encoder."""
        assert self._about is not None, "call bind first"
        return self._about

    def build_model(self) -> nn.Module:
        """The base network with fresh weights, for the prepared embeddings and classes if they are bound."""
        name, args = self._model
        widths = {} if self._about is None else {key: self._about[key] for key in ("features", "classes")}
        return build_model(name, {**args, **widths})

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: the file is missing, damaged, or was prepared with other params.
        """
        path, tensors = split_file(prepared, split), split_tensors(prepared, split)
        embedding, label = tensors.get("embedding"), tensors.get("label")
        if (
            embedding is None
            or label is None
            or embedding.dtype != torch.float32
            or label.dtype != torch.int64
            or tuple(embedding.shape) != (len(label), self.about["features"])
        ):
            raise UserError(f"{path} does not hold embedded texts with labels; run the stage prepare again")
        return EmbeddedTexts(embedding, label)

    def shown(self, prepared: Path, split: SplitName, sample_id: Sequence[int]) -> list[str]:
        """The texts."""
        # not splitlines: texts may hold other line breaks, such as U+2028
        lines = need_file(prepared / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
        return [str(json.loads(lines[i])["text"]) for i in sample_id]

    @property
    def metrics(self) -> Sequence[Metric]:
        """See `classification_metrics`, and Matthews' correlation, before or after accuracy as `data.headline` says."""
        cross_entropy, accuracy, *others = super().metrics
        two = (accuracy, matthews()) if self.data.headline == "accuracy" else (matthews(), accuracy)
        return (cross_entropy, *two, *others)

    def remarks(self) -> list[str]:
        """The encoder, and how many texts were cut, if the prepared data is bound."""
        tuned = {"none": "as it is", "setfit": "fine-tuned on the training shots"}[self.data.finetune.method]
        found = [f"Encoder: {self.data.encoder}, {tuned}."]
        if self._about is not None and any(self._about["cut"].values()):
            counts = ", ".join(f"{count} of {split}" for split, count in self._about["cut"].items())
            found.append(f"Texts are cut after {self._about['max_tokens']} tokens: {counts}.")
        return found

    def condition(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor, model: nn.Module | None = None
    ) -> Condition:
        """I(x) is the embedding alone (section 4), which is the input of `dense`; the other parts are empty."""
        empty = layer_input.new_empty(len(layer_input), 0)
        return Condition(layer_input.flatten(1), empty, empty)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """A text file (UTF-8) as the model's input, float32 (1, D): one text, encoded as the prepared ones were.

        Raises:
            UserError: the file does not exist, is not UTF-8 or is empty, or the encoder cannot be loaded.
        """
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if is_shortage(error):
                raise
            raise UserError(f"{path} is not a readable text file in UTF-8: {error}") from error
        if not text:
            raise UserError(f"{path} is empty")
        assert self._prepared is not None, "call bind first"
        own = self._prepared / TUNED  # fine-tuned, or a folder that came with a bundle
        name = str(own.absolute()) if own.is_dir() else self.data.encoder
        return (encode(load_encoder(name, self.data.max_tokens), [text], {}, "the text"),)


def _lines(chosen: Texts) -> str:
    rows = zip(chosen.texts, chosen.label_N.tolist(), strict=True)
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)


def _hashes(text: str) -> tuple[bytes, ...]:
    return (hashlib.blake2b(text.encode(), digest_size=16).digest(),)


TASK = TextClassification
