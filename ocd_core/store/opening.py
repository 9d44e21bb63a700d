"""Opening a store to be written, wherever it is."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from ocd_core.files import is_url
from ocd_core.store.local import LocalWriter
from ocd_core.store.remote import RemoteWriter
from ocd_core.store.schema import StoreSchema
from ocd_core.store.writer import Writer


def open_writer(
    dest: Path | str,
    schema: StoreSchema,
    attributes: dict[str, Any],
    sample_id: npt.NDArray[Any],
    replica: npt.NDArray[Any],
    *,
    work_root: Path,
    fingerprint: str,
) -> Writer:
    """A writer for a store at a path or an fsspec URL.

    Args:
        dest: where the finished store goes.
        schema, attributes, sample_id, replica, fingerprint: see `Writer`.
        work_root: the folder of the work folders of local stores; not used for a URL.

    Raises:
        UserError: another process is writing this store, or something else is in its place.
    """
    content = (schema, attributes, sample_id, replica)
    if is_url(dest):
        return RemoteWriter(str(dest), *content, fingerprint=fingerprint)
    return LocalWriter(dest, *content, work_root=work_root, fingerprint=fingerprint)
