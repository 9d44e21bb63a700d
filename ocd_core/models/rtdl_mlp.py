"""The multi-layer perceptron of Gorishniy et al. (2021), from their own package (extra `tabular`)."""

from torch import nn

from ocd_core.models.parts.extras import rtdl


def rtdl_mlp(in_features: int, out_features: int, blocks: int, width: int, dropout: float = 0.0) -> nn.Module:
    """`blocks` times a linear layer `blocks.<i>.linear`, ReLU and dropout; then a linear layer `output`.

    Input: (N, in_features). Output: (N, out_features).

    Raises:
        UserError: the package is not installed.
    """
    model: nn.Module = rtdl().MLP(d_in=in_features, d_out=out_features, n_blocks=blocks, d_block=width, dropout=dropout)
    return model


MODEL = rtdl_mlp
