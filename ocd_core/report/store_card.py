"""The data set card of a store: what it holds and how to open it, for people (README.md) and programs (card.json).

A card is a function of the store alone: it has no date and names no machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocd_core._version import __version__
from ocd_core.artifacts import json_text, replaced_folder, write_text
from ocd_core.params_files import flat
from ocd_core.store import OverfitStore
from ocd_core.store.summary import array_sizes, read_rows, spread
from ocd_core.terminal import code_text

CARD_JSON, CARD_README = "card.json", "README.md"
CARD_VERSION = 1
NO_LICENCE = "see the source data"
CITATION = """@inproceedings{lutati2023ocd,
  title     = {{OCD}: Learning to Overfit with Conditional Diffusion Models},
  author    = {Lutati, Shahar and Wolf, Lior},
  booktitle = {Proceedings of the 40th International Conference on Machine Learning},
  year      = {2023}
}"""


def write_card(store: Path | str, card: Path) -> None:
    """Write the card of a finished store as a folder with README.md and card.json, complete or absent.

    Args:
        store: a path or fsspec URL of a store.
        card: the folder to write; an earlier one is replaced.

    Raises:
        UserError: there is no sound store.
    """
    files = card_files(OverfitStore(store))
    with replaced_folder(card) as work:
        for name, text in files.items():
            write_text(work / name, text)


def card_files(store: OverfitStore) -> dict[str, str]:
    """The texts of a card, by file name."""
    values = describe(store)
    return {CARD_JSON: json_text(values), CARD_README: readme(values)}


def describe(store: OverfitStore) -> dict[str, Any]:
    """The card as plain values."""
    about, schema = store.attributes, store.schema
    data = about.get("data") or {}
    rows = read_rows(store)
    correct = rows.correct
    name = Path(store.location).name
    summary: dict[str, Any] = {
        "rows": len(rows),
        "rho": spread(rows.rho),
        "loss_before": spread(rows.loss[:, 0]),
        "loss_after": spread(rows.loss[:, -1]),
        "share_of_rows_whose_loss_fell": float((rows.loss[:, -1] < rows.loss[:, 0]).mean()),
    }
    if correct is not None:
        summary["base_is_right"] = int(correct.sum())
        summary["base_is_wrong"] = int((~correct).sum())
        for key, chosen in (("rho_where_right", correct), ("rho_where_wrong", ~correct)):
            if chosen.any():
                summary[key] = spread(rows.rho[chosen])
    return {
        "card_version": CARD_VERSION,
        "store": name,
        "schema_version": about["schema_version"],
        "fingerprint": about["fingerprint"],
        "task": about.get("task"),
        "split": about.get("split"),
        "seed": about.get("seed"),
        "rank": about.get("rank"),
        "rows": len(store),
        "layer": {"name": about.get("layer"), "out_features": schema.out_features, "in_features": schema.in_features},
        "layout": schema.layout,
        "steps": schema.steps,
        "base_sha256": about.get("base_sha256"),
        "config": about.get("config"),
        "arrays": [
            {
                "name": a.name,
                "dims": list(a.dims),
                "shape": list(a.shape),
                "dtype": a.dtype,
                "units": a.units,
                "meaning": a.meaning,
                "bytes": a.bytes,
                "stored_bytes": a.stored_bytes,
            }
            for a in array_sizes(store)
        ],
        "summary": summary,
        "classes": rows.classes,
        "source": data.get("source"),
        "licence": data.get("licence") or NO_LICENCE,
        "shared_rows": data.get("shared_rows"),
        "citation": CITATION,
        "code_version": about.get("code_version"),
        "card_code_version": __version__,
    }


def readme(card: Mapping[str, Any]) -> str:
    """The card as Markdown; texts, which may come from a stranger's store, are only shown."""
    card = _harmless(card)
    layer, name = card["layer"], card["store"]
    shape = f"{layer['out_features']} × {layer['in_features']}"
    kept = (
        "`delta` is that change, one matrix per row"
        if card["layout"] == "dense"
        else "the store keeps the gradient factors `grad_u`, from which that change is rebuilt exactly"
    )
    return f"""# Overfitted weights: {card["task"]}, {card["split"]} split

Each row is one sample of the {card["split"]} split of `{card["task"]}` (source: {card["source"] or "see the config"}).
A trained base network was overfitted to that sample alone, in the weight of its layer `{layer["name"]}` ({shape}) and
nowhere else; {kept}. With it come what the base network sees in the sample, I(x), the norm ρ of the change, and the
sample's losses.

| | |
| --- | --- |
| rows | {card["rows"]:,} |
| layer | `{layer["name"]}`, {shape} (rank {card["rank"]} of the layers' ranking) |
| layout | {card["layout"]}, {card["steps"]} steps |
| seed | {card["seed"]} |
| size | {_size(card, "bytes")} of numbers, {_size(card, "stored_bytes")} in files |
| base weights | sha256 `{card["base_sha256"]}` |
| licence | {card["licence"]} |
| samples that splits share | {_shared(card["shared_rows"])} |
| schema version | {card["schema_version"]} |
| made with | ocd_core {card["code_version"]} |

## Arrays

| array | dims | shape | type | units | bytes | in files | meaning |
| --- | --- | --- | --- | --- | ---: | ---: | --- |
{_arrays(card)}

## Summary

{_summary(card)}

{_how_to_open(name)}
## Config

{_config(card["config"])}

## Citation

```bibtex
{card["citation"]}
```
"""


def _harmless(value: Any) -> Any:
    """Plain values whose texts can end neither a code span, a line nor a cell, and hold no HTML."""
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    if not isinstance(value, str) or value == CITATION:
        return value
    return code_text(value)


def _how_to_open(name: str) -> str:
    return f"""## How to open it

The store is a Zarr (version 3) group, `{name}`:

```python
import xarray

store = xarray.open_zarr("{name}")
```

```python
import zarr

group = zarr.open_group("{name}", mode="r")
```

```python
from ocd_core import OverfitStore

store = OverfitStore("{name}")
delta = store.delta(0)  # float32, (out_features, in_features), for either layout
```

`ocd verify {name}` decodes every part of it and names what is damaged; `ocd inspect {name}` shows it.
"""


def _shared(counts: Mapping[str, int] | None) -> str:
    """How many samples of a split have the content of a sample of another."""
    if counts is None:
        return "not counted"
    pairs = [(*pair.split("/"), count) for pair, count in counts.items() if count]
    return ", ".join(f"{count:,} of {second} are in {first}" for first, second, count in pairs) or "none"


def _arrays(card: Mapping[str, Any]) -> str:
    return "\n".join(
        f"| `{a['name']}` | {', '.join(a['dims'])} | {' × '.join(map(str, a['shape']))} | {a['dtype']} | "
        f"{a['units']} | {a['bytes']:,} | {a['stored_bytes']:,} | {a['meaning']} |"
        for a in card["arrays"]
    )


def _summary(card: Mapping[str, Any]) -> str:
    summary = card["summary"]
    columns = ("min", "q25", "median", "q75", "max", "mean")
    titles = {
        "rho": "ρ = ‖Δ‖",
        "rho_where_right": "ρ where the base is right",
        "rho_where_wrong": "ρ where it is wrong",
        "loss_before": "loss before",
        "loss_after": "loss after",
    }
    lines = [
        "| | min | 25 % | median | 75 % | max | mean |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {title} | " + " | ".join(f"{summary[key][c]:.3g}" for c in columns) + " |"
            for key, title in titles.items()
            if key in summary
        ),
        "",
        f"Overfitting lowered the loss of {100 * summary['share_of_rows_whose_loss_fell']:.2f} % of the rows.",
    ]
    if "base_is_right" in summary:
        lines.append(f"The base network is right on {summary['base_is_right']:,} rows of {summary['rows']:,}.")
    if summary["rows"] < card["rows"]:
        lines.append(f"These figures are of {summary['rows']:,} rows drawn at random.")
    return "\n".join(lines)


def _config(config: Mapping[str, Any] | None) -> str:
    if not config:
        return "Not recorded."
    lines = ["| parameter | value |", "| --- | --- |"]
    for key, value in flat(config).items():
        lines.append(f"| {key} | `{value}` |")
    return "\n".join(lines)


def _size(card: Mapping[str, Any], key: str) -> str:
    return f"{sum(a[key] for a in card['arrays']) / 1e6:,.1f} MB"
