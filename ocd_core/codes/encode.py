"""Turn overfit stores into what the diffusion model trains on: codes of Δ and their conditions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations import representation_class
from ocd_core.codes.representations.base import Deltas, Representation
from ocd_core.network.covariances import LayerCovariances
from ocd_core.network.moves import row_chunks
from ocd_core.samples import Condition
from ocd_core.store import OverfitStore

if TYPE_CHECKING:
    from ocd_core.diffusion.params import DiffusionParams

_CHUNK_BYTES = 2**26  # of Δ read at a time


def fit_to_store(
    train: OverfitStore, params: "DiffusionParams", covariances: LayerCovariances | None = None
) -> Representation:
    """The representation that the params name, fitted on the Δ of the training store, read in chunks.

    covariances: of the layer, if `representation.metric` is kfac (`network.covariances`), else None.
    """
    representation = params.representation
    assert (covariances is None) == (representation.metric == "euclidean")
    deltas = (delta for _, delta, _ in read_deltas(train))
    if covariances is not None:
        return representation_class(representation.name).fit_weighted(deltas, representation, covariances)
    layer_input = _layer_input(train, slice(0, len(train)))
    return fit_representation(representation, deltas, layer_input, params.unit_variance)


def fit_representation(
    params: RepresentationParams, deltas_NOI: Deltas, layer_input_NI: Tensor | None, unit_variance: bool
) -> Representation:
    """The representation that the params name, fitted on training Δ; see `Representation.fit`."""
    return representation_class(params.name).fit(deltas_NOI, layer_input_NI, params, unit_variance)


def encode_store(representation: Representation, store: OverfitStore) -> tuple[Tensor, Condition]:
    """Codes (N, *shape) and I(x) of the rows that have a code.

    A row with ρ = 0 has no direction, so it is left out if the representation trains on directions.
    """
    codes, rows = [], []
    for chunk, delta, layer_input in read_deltas(store):
        code = representation.encode(delta, layer_input)
        index = torch.arange(chunk.start, chunk.stop)
        kept = delta.flatten(1).norm(dim=1) > 0 if representation.uses_scale else torch.ones(len(delta)).bool()
        codes.append(code[kept])
        rows.append(index[kept])
    return torch.cat(codes), store.condition().select(torch.cat(rows))


def condition_of_samples(store: OverfitStore) -> Condition:
    """I(x) of each sample once (its first replica), in the split's order."""
    first = np.flatnonzero(store.read("replica") == 0)
    return store.condition(first[np.argsort(store.read("sample_id")[first])])


def read_deltas(store: OverfitStore) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """All rows of a store in chunks: (rows, Δ, i_L if the layer sees one position)."""
    row_bytes = 4 * store.schema.out_features * store.schema.in_features
    for rows in row_chunks(len(store), max(1, _CHUNK_BYTES // row_bytes)):
        yield rows, torch.from_numpy(store.deltas(rows)), _layer_input(store, rows)


def _layer_input(store: OverfitStore, rows: slice) -> Tensor | None:
    """i_L as the layer's weight sees it, or None if the layer sees several positions per sample."""
    if store.schema.layer_input != (store.schema.in_features,):
        return None
    return torch.from_numpy(store.read("layer_input", rows))
