"""The card of a bundle, as the Hugging Face hub shows it: what it is, how to load it, what it scored, its licence."""

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.bundles.layout import Manifest
from ocd_core.config import Params
from ocd_core.evaluation.result import Absent, Result
from ocd_core.evaluation.table import read_result_table
from ocd_core.predictor import Predictor
from ocd_core.report.markdown import as_text
from ocd_core.report.results import Merged
from ocd_core.report.run_tables import markdown
from ocd_core.report.store_card import CITATION, NO_LICENCE
from ocd_core.terminal import code_text


def run_card(run: Artifacts, params: Params, predictor: Predictor, manifest: Manifest) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    prepared = read_json(run.prepared / "summary.json")
    source = as_text(str(prepared.get("source") or params.domain))
    outs, ins = predictor.model.weight_OI.shape
    size = sum(file.bytes for file in manifest.files.values())
    own_code = [name for name in (params.domain, params.base.model.name) if ":" in name]
    trust = ", trust_remote_code=True" if own_code else ""
    needs = "" if not own_code else f" It needs the package with `{'` and `'.join(own_code)}`."
    layer, network = code_text(predictor.model.layer_name), code_text(params.base.model.name)
    return f"""---
library_name: ocd-core
tags: [ocd, weight-generation, diffusion]
---

# OCD: {run.task}

For each input this bundle draws the weights of one layer of its base network, and answers with them: `{layer}`
({outs} × {ins}) of `{network}`, trained on `{run.task}` (source: {source}; seed
{run.seed}, layer of rank {run.rank}). It is data alone, {size / 1e6:.2f} MB.{needs}

```python
from ocd_core import Predictor

predictor = Predictor.from_pretrained("."{trust})  # this folder, its URL, or its id on the Hugging Face hub
prediction = predictor.predict(inputs, draws=5)  # .output, .base_output, .draws
```

{predictor.task.__doc__ or ""}

## Results

{_results(run)}
## Licence and citation

Data: {as_text(str(prepared.get("licence") or NO_LICENCE))}.

```bibtex
{CITATION}
```
"""


def _results(run: Artifacts) -> str:
    if not run.evaluation.exists():
        return "Not evaluated.\n"
    table = read_result_table(run.evaluation / "table.json")
    results, absent = [Result(**r) for r in table["results"]], [Absent(**a) for a in table["absent"]]
    return markdown([Merged(run.rank, [table], results, absent)])
