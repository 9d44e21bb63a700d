"""Open a store for writing, at a path or a URL."""

from pathlib import Path

from ocd_core.files import is_url
from ocd_core.store.local import LocalWriter
from ocd_core.store.remote import RemoteWriter
from ocd_core.store.writer import Content, Writer


def open_writer(dest: Path | str, content: Content, work_root: Path) -> Writer:
    """A writer for a store at a path or an fsspec URL.

    Args:
        dest: where the finished store goes.
        content: what the store will hold.
        work_root: the folder of the work folders of local stores; not used for a URL.

    Raises:
        UserError: another process is writing this store, or something else is at its path.
    """
    return RemoteWriter(str(dest), content) if is_url(dest) else LocalWriter(dest, content, work_root)
