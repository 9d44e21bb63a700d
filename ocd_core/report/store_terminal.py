"""An overfit store as tables on the terminal."""

import numpy as np

from ocd_core.store import OverfitStore
from ocd_core.store.summary import RowValues, array_sizes, spread
from ocd_core.terminal import plain, print_table


def headline(store: OverfitStore) -> str:
    """A one-line description of the store, in which nothing is left that a terminal would obey."""
    about = store.attributes
    return plain(
        f"{about.get('task', store.location)}, split {about.get('split', '?')}, seed {about.get('seed', '?')}, rank "
        f"{about.get('rank', '?')}: layer {about.get('layer', '?')} ({store.schema.out_features} × "
        f"{store.schema.in_features}), {len(store):,} rows, layout {store.layout}, schema {about['schema_version']}"
    )


def spreads(values: RowValues) -> dict[str, dict[str, float]]:
    """The spread of ρ and of the losses over all rows, and of ρ over the rows that the base gets right and wrong."""
    columns = {"ρ": values.rho, "loss before": values.loss[:, 0], "loss after": values.loss[:, -1]}
    found = {name: spread(column) for name, column in columns.items()}
    if values.correct is not None:
        for name, chosen in (("right", values.correct), ("wrong", ~values.correct)):
            if chosen.any():
                found[f"ρ, base is {name} ({chosen.sum():,} rows)"] = spread(values.rho[chosen])
    return found


def print_store(store: OverfitStore, values: RowValues, row: int | None = None) -> None:
    """Print a description of the store, its arrays, and the spread of ρ and losses; `row` adds one row in full."""
    print(headline(store))
    arrays = []
    for array in array_sizes(store):
        shape = " × ".join(map(str, array.shape))
        arrays.append([array.name, shape, array.dtype, f"{array.bytes / 1e6:.2f}", f"{array.stored_bytes / 1e6:.2f}"])
    print_table(["array", "shape", "type", "MB", "MB stored"], arrays)
    columns = ("min", "q25", "median", "q75", "max", "mean")
    print_table(
        ["" if len(values) == len(store) else f"of {len(values):,} rows", *columns],
        [[name, *(f"{numbers[c]:.3g}" for c in columns)] for name, numbers in spreads(values).items()],
    )
    if row is not None:
        print(plain(row_text(store, row)))


def row_text(store: OverfitStore, row: int) -> str:
    """One row in full: its sample, ρ, losses, and the largest singular values of its Δ."""
    at = np.array([row])
    singular = np.linalg.svd(store.delta(row).astype(np.float64), compute_uv=False)
    target = np.array2string(store.read("target", at)[0], precision=4, threshold=8)
    return (
        f"row {row}: sample {store.read('sample_id', at)[0]}, replica {store.read('replica', at)[0]}, target {target}, "
        f"ρ {store.read('rho', at)[0]:.4g}, loss {store.read('loss_before', at)[0]:.4g} → "
        f"{', '.join(f'{v:.4g}' for v in store.read('loss_after', at)[0])}; largest singular values of Δ "
        f"{', '.join(f'{v:.3g}' for v in singular[:3])}"
    )
