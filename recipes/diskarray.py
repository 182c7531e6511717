"""Arrays on disk, for cubes and pixel tables that do not fit into memory."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DiskArray:
    """An array in a file, read and written in slices along its first axis; nothing of it stays in memory.

    Parameters
    ----------
    path : Path
    shape : tuple of int
    dtype : numpy dtype
        As stored; what is read has the machine's byte order.
    start : int
        First byte of the array in the file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int = 0

    @classmethod
    def zeros(cls, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> "DiskArray":
        """Make a new file for an array of zeros; it takes room on the disk only where it is written."""
        with path.open("xb") as file:
            file.truncate(prod(shape) * np.dtype(dtype).itemsize)
        return cls(path, shape, np.dtype(dtype))

    def __getitem__(self, index: slice) -> NDArray[Any]:
        first, last = self._range(index)
        shape = (last - first, *self.shape[1:])
        values = np.fromfile(self.path, self.dtype, prod(shape), offset=self._offset(first))
        if values.size != prod(shape):
            raise OSError(f"{self.path.name} ended before row {last} of {self.shape[0]}; it was changed in between.")
        if not self.dtype.isnative:
            values = values.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
        return values.reshape(shape)

    def __setitem__(self, index: slice, values: NDArray[Any]) -> None:
        first, last = self._range(index)
        block = np.ascontiguousarray(np.broadcast_to(values, (last - first, *self.shape[1:])), self.dtype)
        with self.path.open("r+b") as file:
            file.seek(self._offset(first))
            file.write(block.data)

    def _range(self, index: slice) -> tuple[int, int]:
        first, last, step = index.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"an array on disk is read in steps of 1, not {step}.")
        return first, max(first, last)

    def _offset(self, row: int) -> int:
        return self.start + row * prod(self.shape[1:]) * self.dtype.itemsize
