"""`TNPivoted`: a low-rank map whose second core holds an identity block that is not stored."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from tncompress.forms.low_rank import is_low_rank, skips_identity
from tncompress.layers.dense import TNDense
from tncompress.layers.fast_paths import DEFAULT_TOKENS, vectors_of
from tncompress.network.spec import Spec


@keras.saving.register_keras_serializable(package="tncompress")
class TNPivoted(TNDense):
    """`TNDense` of a low-rank spec in the gauge where `rank` of the outputs are the bond itself.

    Between two cores stands a redundant `[rank, rank]` matrix: A B = (A Q) (Q^-1 B). Chosen so that some columns of B
    become the identity, it costs nothing, and those columns need not be stored:

        z = x A,  y = (z, z B) in the order of the outputs

    with A `[in_dim, rank]` and B `[rank, out_dim - rank]`: `rank^2` parameters fewer, the same maps. To multiply by the
    identity all the same is faster than to put the outputs in order, for many vectors: see `skips_identity`.

    Args:
        spec: `"i, i r, r o -> o"`, or its config.
        others: as in `TNDense`.

    Attributes:
        cores: A and B.
        order: int32 `[out_dim]`, not trained: where each output stands in (z, z B).

    Source: interpolative decomposition, Cheng et al. 2005, SIAM J. Sci. Comput. 26(4); on low-rank layers PIFA,
    Zhao et al. 2025, arXiv:2501.19090.

    >>> from tncompress.forms import low_rank
    >>> layer = TNPivoted(low_rank.spec(8, 6, rank=2))
    >>> tuple(layer(ops.ones((3, 5, 8))).shape), layer.count_params()
    ((3, 5, 6), 36)
    """

    def __init__(self, spec: Spec | Mapping, *args, **kwargs):
        super().__init__(spec, *args, **kwargs)
        if not is_low_rank(self.spec):
            raise ValueError(f"{self.name}: only a low-rank spec has pivots, got {str(self.spec)!r}.")

    @property
    def rank(self) -> int:
        """Size of the bond."""
        return self.spec.core_shapes[0][1]

    @property
    def stored_shapes(self) -> tuple[tuple[int, ...], ...]:
        (in_dim, rank), (_, out_dim) = self.spec.core_shapes
        return (in_dim, rank), (rank, out_dim - rank)

    def build(self, input_shape):
        super().build(input_shape)
        self.order = self.add_weight(
            shape=(self.spec.out_dim,), initializer=_counting, dtype="int32", trainable=False, name="order"
        )

    def mapped(self, x, activation):
        y = self.contracted(x)
        if self.bias is not None:
            y = ops.add(y, ops.reshape(self.bias, (-1,)))
        return y if activation is None else activation(y)

    def contracted(self, x):
        left, right = self.tensors()
        z = ops.matmul(x, left)  # [batch, rank]
        if skips_identity(self.spec, vectors_of(x) or DEFAULT_TOKENS):
            both = ops.concatenate([z, ops.matmul(z, right)], axis=-1)  # [batch, out_dim]
            return ops.take(both, self.order, axis=-1)
        # Rows of the transposed core are moved whole, its columns number by number
        identity = ops.eye(self.rank, dtype=keras.backend.standardize_dtype(right.dtype))
        rows = ops.take(ops.concatenate([identity, ops.transpose(right)], axis=0), self.order, axis=0)
        return ops.matmul(z, ops.transpose(rows))

    def to_dense(self):
        left, right = (ops.convert_to_numpy(core) for core in self.tensors())
        return (left @ np.hstack([np.eye(self.rank, dtype=left.dtype), right]))[:, ops.convert_to_numpy(self.order)]


def _counting(shape, dtype=None):
    return ops.arange(shape[0], dtype=dtype)


def pivoted(left: np.ndarray, right: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The cores and the order of a `TNPivoted` that is the map `left [in_dim, rank] @ right [rank, out_dim]`.

    The pivots are chosen by a QR decomposition with column pivoting, which keeps the entries of the second core small.

    >>> cores, order = pivoted(np.array([[2.0]]), np.array([[1.0, 4.0]]))
    >>> cores[0].tolist(), cores[1].tolist(), order.tolist()
    ([[8.0]], [[0.25]], [1, 0])
    """
    import scipy.linalg

    rank, out_dim = right.shape
    double = right.astype(np.float64)
    _, triangle, chosen = scipy.linalg.qr(double, mode="economic", pivoting=True)
    # B = Q R in the order of the pivots; with R = (R1, R2), B's first columns become the identity.
    rest = scipy.linalg.solve_triangular(_regular(triangle[:, :rank]), triangle[:, rank:])
    cores = [left.astype(np.float64) @ double[:, chosen[:rank]], rest]
    order = np.empty(out_dim, np.int32)
    order[chosen] = np.arange(out_dim)
    return [core.astype(left.dtype) for core in cores], order


def _regular(triangle: np.ndarray) -> np.ndarray:
    """The triangle without zeros on its diagonal: of a map whose rank is below the bond, any gauge will do."""
    small = np.abs(np.diag(triangle)) < np.finfo(np.float64).eps * max(np.abs(triangle).max(), 1e-300)
    return triangle + np.diag(np.where(small, 1.0, 0.0))
