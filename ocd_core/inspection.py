"""An overfit store as tables on the terminal."""

import numpy as np

from ocd_core.store import OverfitStore


def print_store(store: OverfitStore, row: int | None = None) -> None:
    """What the store is, its arrays, and the spread of ρ and losses; `row` adds one row in full."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    about = store.attributes
    console.print(
        f"[bold]{about['task']}[/], split {about['split']}, seed {about['seed']}, rank {about['rank']}: layer "
        f"{about['layer']} ({store.schema.out_features} × {store.schema.in_features}), {len(store)} rows, "
        f"layout {store.layout}, schema {about['schema_version']}"
    )
    arrays = Table("array", "shape", "type", "MB", box=None)
    for name in store.schema.arrays():
        array = store.array(name)
        arrays.add_row(name, " × ".join(map(str, array.shape)), str(array.dtype), f"{array.nbytes / 1e6:.1f}")
    console.print(arrays)
    spread = Table("", "min", "25 %", "median", "75 %", "max", "mean", box=None)
    after = store.read("loss_after")
    columns = {"ρ": store.read("rho"), "loss before": store.read("loss_before"), "loss after": after[:, -1]}
    for name, values in columns.items():
        quantiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
        spread.add_row(name, *(f"{q:.3g}" for q in quantiles), f"{values.mean():.3g}")
    console.print(spread)
    if row is not None:
        at = np.array([row])
        delta = store.delta(row)
        singular = np.linalg.svd(delta, compute_uv=False)
        console.print(
            f"row {row}: sample {store.read('sample_id', at)[0]}, replica {store.read('replica', at)[0]}, target "
            f"{store.read('target', at)[0]}, ρ {store.read('rho', at)[0]:.4g}, loss "
            f"{store.read('loss_before', at)[0]:.4g} → {', '.join(f'{v:.4g}' for v in after[row])}; "
            f"largest singular values of Δ {', '.join(f'{v:.3g}' for v in singular[:3])}"
        )
