"""The Zarr stores of overfitted weights: schema, crash-safe writer, reader, verification, torch data set."""

from ocd_core.store.copying import copy_store
from ocd_core.store.dataset import OverfitBatch, OverfitDataset
from ocd_core.store.opening import open_writer
from ocd_core.store.reader import OverfitStore
from ocd_core.store.schema import SCHEMA_VERSION, ArraySpec, StoreSchema
from ocd_core.store.verify import Damage, verify_store
from ocd_core.store.writer import Content, Sink, Writer

__all__ = [
    "SCHEMA_VERSION",
    "ArraySpec",
    "Content",
    "Damage",
    "OverfitBatch",
    "OverfitDataset",
    "OverfitStore",
    "Sink",
    "StoreSchema",
    "Writer",
    "copy_store",
    "open_writer",
    "verify_store",
]
