"""Small pictures that tell their row, encoded, and in Parquet files as Hugging Face stores them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from ocd_core.tasks.images.sources import EncodedPictures, Pictures


def picture(row: int, channels: int = 1, size: tuple[int, int] = (4, 6)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that tells its row."""
    shape = size if channels == 1 else (*size, channels)
    values = np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8)
    values.flat[0] = row
    return values


def png(values: np.ndarray[Any, np.dtype[np.uint8]], kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def write_parquet(path: Path, pictures: list[bytes | None], labels: Any, image_name: str = "image") -> None:
    encoded = [None if p is None else {"bytes": p, "path": None} for p in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image_name: pa.array(encoded, kind), "label": labels}), path)


def decoded(parts: Mapping[str, EncodedPictures]) -> dict[str, Pictures]:
    """All pictures of each part of a source."""
    return {name: part.select(torch.arange(len(part))) for name, part in parts.items()}
