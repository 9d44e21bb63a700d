"""The stages of the pipeline: what each one makes, and which params and artifacts it reads.

One table gives the order of the stages, what is checked before an artifact is used (`ocd_core.provenance`) and the
code that belongs to each stage (`ocd_core.stage_code`). `dvc.yaml` says the same to DVC; a test compares the two.

Artifacts are named as in `ocd_core.artifacts.Artifacts`; an overfit store is `overfit/<split>`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage.

    makes: the artifact. params: dotted keys of the params that it reads; the key of a group stands for the whole group.
    inputs: the artifacts that it reads.
    """

    makes: str
    params: tuple[str, ...]
    inputs: tuple[str, ...] = ()


_DATA = ("domain", "data")
_LAYER = (*_DATA, "base.model", "layer", "scoring")
_ALL = (*_DATA, "base", "layer", "scoring", "overfit", "diffusion", "scale", "sampling", "controls")
_NETWORK = ("prepared", "base", "layers")
_STORES = ("overfit/train", "overfit/val")

STAGES = {
    "prepare": Stage("prepared", _DATA),
    "train_base": Stage("base", (*_DATA, "base"), ("prepared",)),
    "score_layers": Stage("layers", (*_LAYER, "overfit"), ("prepared", "base")),
    "diagnose": Stage("diagnosis", (*_LAYER, "overfit"), _NETWORK),
    "overfit": Stage("overfit", (*_LAYER, "overfit"), _NETWORK),
    "train_diffusion": Stage("diffusion", (*_DATA, "base.model", "diffusion"), (*_NETWORK, *_STORES)),
    "train_scale": Stage("scale", ("diffusion.representation.name", "scale"), _STORES),
    "tune_diffusion": Stage(
        "tuned",
        (*_DATA, "base.model", "sampling.renormalise", "tuning"),
        (*_NETWORK, *_STORES, "diffusion", "scale"),
    ),
    "train_controls": Stage(
        "controls", (*_ALL, "tuning", "evaluate.precision"), (*_NETWORK, *_STORES, "diffusion", "scale", "tuned")
    ),
    "evaluate": Stage(
        "evaluation",
        (*_ALL, "tuning", "evaluate"),
        (*_NETWORK, *_STORES, "overfit/test", "diffusion", "scale", "tuned", "controls"),
    ),
    "illustrate": Stage(
        "pictures", (*_ALL, "evaluate.precision"), (*_NETWORK, "overfit/test", "diffusion", "scale", "controls")
    ),
    "report": Stage("report", ()),
}

# The files of an artifact that later stages depend on; of other artifacts, all files. Files that only describe the
# course of a training are left out: if a stage runs again with the same result, later artifacts stay current
CONTENT = {
    "base": ("model.safetensors",),
    "layers": ("layers.json",),
    "diffusion": ("model.safetensors", "config.json", "metrics.json"),
    "scale": ("model.safetensors", "config.json", "metrics.json"),
    "tuned": ("model.safetensors", "config.json", "metrics.json"),
    "controls": ("model.safetensors", "config.json", "metrics.json"),
}

# The class of each group of params, imported by name: a new param affects only the stages that read its group. A part
# of a group that a stage reads alone has its own entry
GROUP_MODULES = {
    "base": "ocd_core.network.params:BaseParams",
    "layer": "ocd_core.scoring.params:LayerParams",
    "scoring": "ocd_core.scoring.params:ScoringParams",
    "overfit": "ocd_core.overfit.params:OverfitParams",
    "diffusion": "ocd_core.diffusion.params:DiffusionParams",
    "diffusion.representation": "ocd_core.codes.params:RepresentationParams",
    "scale": "ocd_core.scale.params:ScaleParams",
    "sampling": "ocd_core.diffusion.sampling_params:SamplingParams",
    "tuning": "ocd_core.diffusion.tuning_params:TuningParams",
    "controls": "ocd_core.evaluation.params:ControlsParams",
    "evaluate": "ocd_core.evaluation.params:EvaluateParams",
}

MAKERS = {stage.makes: name for name, stage in STAGES.items()}


def params_module(key: str) -> str | None:
    """The module of the class that describes a dotted key of the params; None for `domain` and `data`."""
    while key and key not in GROUP_MODULES:
        key = key.rpartition(".")[0]
    return GROUP_MODULES[key].split(":")[0] if key else None


def maker(artifact: str) -> str:
    """The name of the stage that makes an artifact."""
    return MAKERS[artifact.split("/")[0]]
