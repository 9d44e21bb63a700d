"""The Zarr stores of overfitted weights: schema, crash-safe writer, reader, verification, torch data set."""

from ocd_core.store.copying import copy_store
from ocd_core.store.dataset import OverfitBatch, OverfitDataset
from ocd_core.store.reader import OverfitStore
from ocd_core.store.remote import RemoteSink, RemoteWriter, put_folder
from ocd_core.store.schema import SCHEMA_VERSION, ArraySpec, StoreSchema
from ocd_core.store.verify import Damage, verify_store
from ocd_core.store.writer import ShardSink, StoreWriter

__all__ = [
    "SCHEMA_VERSION", "ArraySpec", "Damage", "OverfitBatch", "OverfitDataset", "OverfitStore", "RemoteSink",
    "RemoteWriter", "ShardSink", "StoreSchema", "StoreWriter", "copy_store", "put_folder", "verify_store",
]  # fmt: skip
