"""Images stored as pixels or encoded: what preparing and reading them in order costs.

Smooth random pictures of 224 x 224 as JPEG, in one Parquet file. *Preparing* runs in a process of its own, whose peak
memory counts from the start of `prepare`. *Reading*: the wall time of a network's forward pass over all pictures in
batches, with whatever the storage adds to it; *no reading ahead* decodes each batch when it is asked for.
"""

import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import mnist
from benchmarks.machine import peak_rss_mib
from ocd_core.report.markdown import markdown_table
from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.splits import ImageSplit, ReadAhead, open_split
from ocd_core.tasks.images.task import ImageClassification

TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
ROWS = int(os.environ.get("OCD_BENCH_ROWS", "2000"))
READ, SIDE, BATCH = 240, 224, 16
PIXELS, ENCODED, NOT_AHEAD = "pixels", "encoded", "encoded, no reading ahead"
TARGET = 1.2  # times the wall time with pixels


def data_of(folder: Path, storage: str) -> ImageData:
    values = mnist.DATA.model_dump() | {
        "source": "huggingface", "path": str(folder), "train_files": ["train.parquet"], "test_files": None,
        "image_column": "image", "label_column": "label", "channels": 3, "height": SIDE, "width": SIDE,
        "val_size": 10, "test_size": 10, "storage": storage,
    }  # fmt: skip
    return ImageData.model_validate(values)


def write_pictures(path: Path) -> None:
    rng = np.random.default_rng(0)

    def encoded() -> Iterator[dict[str, bytes | None]]:
        for _ in range(ROWS):
            small = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            out = io.BytesIO()
            small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            yield {"bytes": out.getvalue(), "path": None}

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(encoded(), kind), "label": np.arange(ROWS) % 10}), path)


def prepare(folder: Path, storage: str, answer: "multiprocessing.Queue[tuple[float, float]]") -> None:
    task = ImageClassification(data_of(folder, storage), "googlenet", {"classes": 10})
    import datasets  # noqa: F401  (so that its memory does not count)

    before, start = peak_rss_mib(), time.process_time()
    task.prepare(folder / storage)
    seconds = time.process_time() - start
    answer.put((seconds, peak_rss_mib() - before))


def network() -> nn.Module:
    """As much work as a small network of today: 0.2 GFLOP per picture."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 7, stride=4, padding=3), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def seconds_to_read(split: ImageSplit, net: nn.Module) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        for rows in torch.arange(READ).split(BATCH):
            net(split.batch(rows).inputs[0])
    return time.perf_counter() - start


def without_ahead(split: ImageSplit, data: ImageData) -> ImageSplit:
    ahead = split._read
    assert isinstance(ahead, ReadAhead)
    read: Callable[[Tensor], Tensor] = ahead._read
    return ImageSplit(read, split.label_N, data)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = network()
    context = multiprocessing.get_context("spawn")
    prepared: dict[str, tuple[float, float, float]] = {}
    seconds: dict[str, list[float]] = {PIXELS: [], ENCODED: [], NOT_AHEAD: []}
    with tempfile.TemporaryDirectory(prefix="ocd-bench-", dir=os.environ.get("OCD_BENCH_DIR")) as name:
        folder = Path(name)
        write_pictures(folder / "train.parquet")
        splits = {}
        for storage in (PIXELS, ENCODED):
            answer = context.Queue()
            process = context.Process(target=prepare, args=(folder, storage, answer))
            process.start()
            found = answer.get(timeout=600)
            process.join()
            bytes_ = sum(file.stat().st_size for file in (folder / storage).iterdir())
            prepared[storage] = (*found, bytes_ / ROWS / 1000)
            splits[storage] = open_split(folder / storage, "train", data_of(folder, storage))
        splits[NOT_AHEAD] = without_ahead(splits[ENCODED], data_of(folder, ENCODED))
        for turn in range(-1, TURNS):
            for kind, split in splits.items():
                took = seconds_to_read(split, net)
                if turn >= 0:
                    seconds[kind].append(took)
    print(f"{ROWS} JPEG pictures of {SIDE} x {SIDE}; {READ} of them read, median of {TURNS} turns.\n")
    ratio = {
        kind: statistics.median(own / plain for own, plain in zip(values, seconds[PIXELS], strict=True))
        for kind, values in seconds.items()
    }
    lines = []
    for kind, values in seconds.items():
        cost = prepared.get(kind)
        cells = ["", "", ""] if cost is None else [f"{cost[0] / ROWS * 1e3:.2f}", f"{cost[1]:.0f}", f"{cost[2]:.0f}"]
        lines.append([kind, *cells, f"{statistics.median(values) / READ * 1e3:.2f}", f"{ratio[kind]:.2f}"])
    head = ["", "prepare, CPU ms per image", "peak MiB of it", "kB on disk", "read and forward, ms", "times pixels"]
    print(markdown_table(head, lines), flush=True)
    return int(ratio[ENCODED] > TARGET)


if __name__ == "__main__":
    raise SystemExit(main())
