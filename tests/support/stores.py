"""Small stores for the tests: seeded numbers of every shape a store can have."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ocd_core.store import Content, OverfitStore, StoreSchema
from ocd_core.store.factored import rebuild_delta
from ocd_core.store.local import LocalWriter

ATTRIBUTES: dict[str, Any] = {
    "config": {"overfit": {"optimizer": "sgd", "lr": 0.01, "steps": 3}},
    "layer": "fc1",
    "seed": 0,
}


def make_schema(layout="dense", rows=10, shard_rows=4, **changes) -> StoreSchema:
    values = {
        "layout": layout,
        "rows": rows,
        "out_features": 5,
        "in_features": 6,
        "steps": 3,
        "layer_input": (6,),
        "layer_activation": (5,),
        "base_output": (2,),
        "target_shape": (),
        "target_dtype": "int64",
        "shard_rows": shard_rows,
    }
    return StoreSchema(**{**values, **changes})


def make_values(schema: StoreSchema, seed: int = 0) -> dict[str, np.ndarray]:
    """Whole arrays of random numbers, sample_id and replica among them."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, spec in schema.arrays().items():
        if spec.dtype.kind == "f":
            values[name] = rng.standard_normal(spec.shape).astype(spec.dtype)
        else:
            values[name] = rng.integers(0, 100, spec.shape).astype(spec.dtype)
    values["sample_id"] = rng.permutation(schema.rows).astype(np.int64)
    return values


def shard_of(schema: StoreSchema, values: dict[str, np.ndarray], shard: int) -> dict[str, np.ndarray]:
    """What `Writer.write` takes: all but sample_id and replica."""
    return {n: v for n, v in whole_shard_of(schema, values, shard).items() if n not in ("sample_id", "replica")}


def whole_shard_of(schema: StoreSchema, values: dict[str, np.ndarray], shard: int) -> dict[str, np.ndarray]:
    """What `Sink.write` takes."""
    rows = schema.shard_slice(shard)
    return {name: v[rows] for name, v in values.items()}


def open_writer(dest: Path, schema: StoreSchema, values: dict[str, np.ndarray], **changes) -> LocalWriter:
    """A writer whose work folders are beside the store."""
    return LocalWriter(dest, content_of(schema, values, **changes), dest.parent / ".work")


def content_of(schema: StoreSchema, values: dict[str, np.ndarray], **changes) -> Content:
    """What a store of these values is to hold."""
    options = {"attributes": ATTRIBUTES, "fingerprint": "f00d", **changes}
    return Content(schema, sample_id=values["sample_id"], replica=values["replica"], **options)


def complete(dest: Path, schema: StoreSchema, values: dict[str, np.ndarray], **changes) -> list[int]:
    """Write what is missing and finish; which shards those were."""
    with open_writer(dest, schema, values, **changes) as writer:
        missing = writer.missing()
        for shard in missing:
            writer.write(shard, shard_of(schema, values, shard))
        writer.finish()
    return missing


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


ABOUT = {**ATTRIBUTES, "task": "toy", "split": "train", "rank": 1, "code_version": "0.1", "base_sha256": "0" * 64}


def class_store(dest: Path, layout: str = "dense", rows: int = 30, classes: int = 3, **changes) -> OverfitStore:
    """A classification: one label a row, one output a class; Δ of rank one, as SGD makes it."""
    schema = make_schema(layout, rows, base_output=(classes,))
    values = make_values(schema, seed=changes.pop("seed", 0))
    rng = np.random.default_rng(7)
    grad_u = rng.standard_normal((rows, 3, 5)).astype(np.float32)
    delta = rebuild_delta(grad_u, values["layer_input"], "sgd", 0.01)
    values["target"] = rng.integers(0, classes, rows)
    values["grad_u" if layout == "factored" else "delta"] = grad_u if layout == "factored" else delta
    attributes = {**changes.pop("attributes", ABOUT), "classes": classes}
    return finish(dest, schema, values, delta, rng, attributes, **changes)


def value_store(dest: Path, rows: int = 12, **changes) -> OverfitStore:
    """A regression: three numbers a row."""
    schema = make_schema("dense", rows, target_shape=(3,), target_dtype="float32", base_output=(3,))
    values = make_values(schema)
    return finish(dest, schema, values, values["delta"], np.random.default_rng(8), **changes)


def finish(dest, schema, values, norms_of, rng, attributes=ABOUT, **changes) -> OverfitStore:
    """Write a store; `changes` replace arrays."""
    values["rho"] = np.linalg.norm(norms_of.reshape(schema.rows, -1).astype(np.float64), axis=1)
    values["replica"] = np.zeros(schema.rows, np.int64)
    values["loss_before"] = rng.random(schema.rows)
    values["loss_after"] = values["loss_before"][:, None] * np.array([0.8, 0.5, 0.2])
    complete(dest, schema, {**values, **changes}, attributes=attributes)
    return OverfitStore(dest)
