"""`Packed`: a symmetric matrix in half the memory, to which products of vectors are added in place."""

from typing import Any

import numpy as np

from tncompress.linalg import mirror


class Packed:
    """A symmetric matrix `[size, size]` of float32 that holds every number once; numpy takes it as an array.

    LAPACK's rectangular full packed format (Gustavson, Wasniewski, Dongarra & Langou 2010): of the two triangles that
    halves of the rows have, one is put into the other's empty corner. So products run at the speed of full matrices.

    Args:
        size: rows and columns.
        numbers: `[size * (size + 1) / 2]` in that format, lower triangle, not transposed; None for zeros.

    >>> packed = Packed(2)
    >>> packed.add_products(np.array([[1.0, 2.0], [0.0, 1.0]], np.float32))
    >>> np.asarray(packed).tolist(), packed.numbers.size
    ([[1.0, 2.0], [2.0, 5.0]], 3)
    """

    def __init__(self, size: int, numbers: np.ndarray | None = None):
        self.size = size
        self.numbers = np.zeros(size * (size + 1) // 2, np.float32) if numbers is None else numbers

    def add_products(self, x: np.ndarray, scale: float = 1.0) -> None:
        """Add scale * x^T x of vectors `[n, size]`, float32."""
        from scipy.linalg.lapack import ssfrk  # type: ignore[attr-defined]

        # LAPACK counts columns first: our rows are its columns. The numbers are changed in place.
        flags = {"transr": "N", "uplo": "L", "trans": "N", "overwrite_c": True}
        self.numbers = ssfrk(self.size, len(x), scale, x.T, 1.0, self.numbers, **flags)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        half = (self.size + 1) // 2
        rows = self.numbers.reshape(half, -1)  # what LAPACK calls columns
        even = 1 - self.size % 2
        full = np.empty((self.size, self.size), dtype or np.float32)
        full[:half] = rows[:, even:]  # of which the upper triangle counts
        mirror(full[:half, :half].T)
        full[half:, half:] = rows[1 - even :, : self.size - half]  # of which the lower one does
        mirror(full[half:, half:])
        full[half:, :half] = full[:half, half:].T
        return full

    def __add__(self, other: "Packed") -> "Packed":
        return Packed(self.size, self.numbers + other.numbers)

    def any(self) -> bool:
        """Whether any number is not zero."""
        return bool(self.numbers.any())
