"""Small stores whose numbers fit together: Δ has norm ρ, factors rebuild it, targets are classes or not."""

from pathlib import Path

import numpy as np

from ocd_core.store import OverfitStore
from ocd_core.store.factored import rebuild_delta
from tests.store.support import ATTRIBUTES, complete, make_schema, make_values

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
