"""DeiT (Touvron et al., 2021): the distilled vision transformer with two heads, from `transformers` (extra `vision`).

Dims: N images, D hidden size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.hub import local_folder, unreadable
from ocd_core.models.parts.extras import quiet_transformers, transformers

HEADS = ("cls_classifier", "distillation_classifier")
# what must be equal in a published network: the key of its config, and the argument of ours that says it, if any
_CONFIG = {
    "hidden_size": "hidden",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "patch_size": "patch",
    "image_size": "image",
    "intermediate_size": None,
    "num_channels": None,
    "hidden_act": None,
    "layer_norm_eps": None,
    "qkv_bias": None,
}
_SOURCE = "base.model.args.source"
_NAMED = 3  # how many tensors an error names


class DeiTBody(nn.Module):
    """Images to the final states of the class token and the distillation token, (N, 3, H, W) to (N, 2, D).

    Images of another size than the transformer's are resized (bicubic with antialiasing, as in DeiT's own
    preprocessing, here on floating point pixels). Nothing here needs a gradient with respect to the image.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.size = int(config.image_size)
        self.transformer = transformers().DeiTModel(config, add_pooling_layer=False)
        # transformers starts tokens and positions at zero; DeiT's own start, as here, tells the tokens apart
        for start in (
            self.transformer.embeddings.cls_token,
            self.transformer.embeddings.distillation_token,
            self.transformer.embeddings.position_embeddings,
        ):
            nn.init.trunc_normal_(start, std=config.initializer_range)

    def forward(self, image: Tensor) -> Tensor:
        """The two tokens of a batch of images."""
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        tokens: Tensor = self.transformer(pixel_values=image).last_hidden_state
        return tokens[:, :2]


class DeiT(nn.Module):
    """`body` (a transformer), then `cls_classifier` on its class token, `distillation_classifier` on the other.

    Input: (N, 3, H, W) images of any size, normalised as the weights expect. Output: (N, classes) logits, the mean of
    both heads'. By default the architecture is DeiT-B/16.

    The body is one node for torch.fx, so that it runs once per sample if a head moves; both heads together are the
    layer `cls_classifier+distillation_classifier`. A layer inside the body, such as
    `body.transformer.layers.0.attention.q_proj`, can move too, but then the whole network runs in every step.

    Args:
        classes: the number of classes.
        source: published weights that training starts from, read by `load_pretrained`: a hub id such as
            `facebook/deit-base-distilled-patch16-224`, or a folder with `config.json` and `model.safetensors`; None:
            fresh weights.
        hidden, layers, heads, patch, image: the architecture: D, the number of layers and of attention heads, pixels
            of a patch and of an image (each side). The hidden layer of a block has 4·D units.
        frozen_body: whether only the heads are trained.
    """

    fx_leaves = ("body",)

    def __init__(
        self,
        classes: int,
        source: str | None = None,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        patch: int = 16,
        image: int = 224,
        frozen_body: bool = False,
    ) -> None:
        super().__init__()
        if min(classes, hidden, layers, heads, patch, image) < 1:
            raise ValueError("classes, hidden, layers, heads, patch and image must be at least 1")
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        if image % patch:
            raise ValueError(f"image ({image}) must be a multiple of patch ({patch})")
        self.source = source
        self.config = transformers().DeiTConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            patch_size=patch,
            image_size=image,
        )
        self.body = DeiTBody(self.config)
        self.cls_classifier = nn.Linear(hidden, classes)
        self.distillation_classifier = nn.Linear(hidden, classes)
        for head in (self.cls_classifier, self.distillation_classifier):
            nn.init.trunc_normal_(head.weight, std=self.config.initializer_range)
            nn.init.zeros_(head.bias)
        if frozen_body:
            self.body.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        tokens = self.body(image)
        logits: Tensor = (self.cls_classifier(tokens[:, 0]) + self.distillation_classifier(tokens[:, 1])) / 2
        return logits

    def load_pretrained(self) -> list[str]:
        """Read the weights of `source` into this network; its heads keep their fresh weights if the classes differ.

        Returns sentences about what was replaced. Only safetensors are read.

        Raises:
            UserError: the source cannot be read (a hub id without the network), is no distilled DeiT, has another
                architecture, or lacks or adds weights.
        """
        if self.source is None:
            return []
        found, mismatched = self._published(self.source)
        state = {
            **{f"body.transformer.{name}": value for name, value in found.deit.state_dict().items()},
            **{f"{head}.{name}": v for head in HEADS for name, v in getattr(found, head).state_dict().items()},
        }
        replaced = [head for head in HEADS if any(name.startswith(f"{head}.") for name in mismatched)]
        own = {name: value for name, value in self.state_dict().items() if name.split(".")[0] in replaced}
        self.load_state_dict(state | own)
        if not replaced:
            return []
        classes = {mismatched[f"{head}.weight"][0] for head in replaced}
        return [
            f"Weights of {self.source}, whose {' and '.join(replaced)} (of {' and '.join(map(str, sorted(classes)))} "
            f"classes) {'were' if len(replaced) > 1 else 'was'} replaced by fresh ones of "
            f"{self.cls_classifier.out_features} classes."
        ]

    def _published(self, source: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """The network of a source in the library's form, and the published shapes of weights that do not fit it."""
        library, folder = transformers(), local_folder(source, _SOURCE)
        where = source if folder is None else str(folder)
        try:
            with quiet_transformers():
                config = library.AutoConfig.from_pretrained(where)
        except Exception as error:  # the library raises many kinds
            if is_shortage(error):
                raise
            raise unreadable(source, _SOURCE, folder is not None, error) from error
        self._check_config(source, config)
        config.num_labels = self.cls_classifier.out_features
        try:
            with quiet_transformers(), torch.random.fork_rng([]):
                found, info = library.DeiTForImageClassificationWithTeacher.from_pretrained(
                    where,
                    config=config,
                    use_safetensors=True,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except Exception as error:
            if is_shortage(error):
                raise
            raise unreadable(source, _SOURCE, folder is not None, error) from error
        mismatched = {name: tuple(published) for name, published, _ in info["mismatched_keys"]}
        wrong = {
            "missing": sorted(info["missing_keys"]),
            "unexpected": sorted(info["unexpected_keys"]),
            "of another shape": sorted(name for name in mismatched if name.split(".")[0] not in HEADS),
        }
        problems = [
            f"{what} {', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"
            for what, names in wrong.items()
            if names
        ]
        if problems:
            raise UserError(f"{_SOURCE}: {source} is not a distilled DeiT with two heads: {'; '.join(problems)}")
        return found, mismatched

    def _check_config(self, source: str, config: Any) -> None:
        if config.model_type != "deit":
            raise UserError(f"{_SOURCE}: {source} is a {config.model_type}, not a deit")
        for key, argument in _CONFIG.items():
            published, own = getattr(config, key), getattr(self.config, key)
            if published != own:
                remedy = f"set base.model.args.{argument} to it" if argument else "which this network does not support"
                raise UserError(f"{_SOURCE}: {source} has {key} {published}, not {own}; {remedy}")


MODEL = DeiT
