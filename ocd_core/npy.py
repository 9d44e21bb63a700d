"""Arrays as .npy files that are written piece by piece.

They are not mapped into memory for that: a disk that is full then kills the process, without an error.
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ocd_core.files import full_disk_named


class ArrayFile:
    """A .npy file that is filled along its first axis; to be used in a `with` statement.

    Args:
        path: a new file.
        dtype, shape: of the whole array.

    Raises:
        UserError: the disk is full; also while it is filled.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self._rows = 0
        with full_disk_named(path):
            self._file = path.open("wb")
            about = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, about)

    def append(self, values: npt.NDArray[np.generic]) -> None:
        """The next rows, (n, ...), which are cast to the file's dtype."""
        assert values.shape[1:] == self.shape[1:]
        with full_disk_named(self.path):
            self._file.write(np.ascontiguousarray(values, self.dtype).data)
        self._rows += len(values)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with full_disk_named(self.path):
            self._file.close()
        assert error is not None or self._rows == self.shape[0], f"{self.path}: {self._rows} rows of {self.shape[0]}"
