"""The residual network for tables of Gorishniy et al. (2021), from their own package (extra `tabular`)."""

from torch import nn

from ocd_core.models.parts.extras import rtdl


def rtdl_resnet(
    in_features: int,
    out_features: int,
    blocks: int,
    width: int,
    hidden: int,
    hidden_dropout: float = 0.0,
    residual_dropout: float = 0.0,
) -> nn.Module:
    """A linear layer `input_projection`; residual blocks, each with two linear layers and batch normalisation; a head.

    Input: (N, in_features). Output: (N, out_features).

    Raises:
        UserError: the package is not installed.
    """
    model: nn.Module = rtdl().ResNet(
        d_in=in_features,
        d_out=out_features,
        n_blocks=blocks,
        d_block=width,
        d_hidden=hidden,
        d_hidden_multiplier=None,
        dropout1=hidden_dropout,
        dropout2=residual_dropout,
    )
    return model


MODEL = rtdl_resnet
