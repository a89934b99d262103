"""`TNEmbedding`: a table of embeddings in low-rank bands, in the place of `keras.layers.Embedding`."""

from collections.abc import Iterable, Sequence

import keras
from keras import ops

from tncompress.fitting.embedding import EmbeddingFit, checked_bands

EMBEDDING_STDDEV = 0.05 / 3**0.5  # of the entries that keras.layers.Embedding starts from: uniform up to 0.05


@keras.saving.register_keras_serializable(package="tncompress")
class TNEmbedding(keras.layers.Layer):
    """The row of a token, `table [tokens, rank]` times `projection [rank, output_dim]` of the band it is in.

    Tokens are sorted, usually by how often they are seen, and cut into bands; frequent ones get more rank (adaptive
    input embeddings: Baevski & Auli 2019, arXiv:1809.10853). A weight `position` holds the place of every token in the
    order; in a new layer the order is that of the ids. Input: ids `[...]`, output `[..., output_dim]`.

    Args:
        input_dim: size of the vocabulary.
        output_dim: features.
        bands: pairs of (tokens, rank), from the first in the order to the last; a rank of None, or of `output_dim`,
            keeps the band's rows whole, without a projection.
        mask_zero: as in `keras.layers.Embedding`.
        factor_initializer: of every table and projection. None: normal, so that embeddings are as large as those
            which `keras.layers.Embedding` starts from.
        factor_regularizer, factor_constraint: act on every table and projection by itself.

    Attributes:
        position: int32 `[input_dim]`, not trained.
        tables, projections: a weight for every band; None for the projection of one that is whole.

    An id outside of the vocabulary is an error of the backend's where it checks ids (TensorFlow and PyTorch on a CPU);
    elsewhere the result is meaningless.

    Raises:
        ValueError: if the bands do not share the vocabulary out.

    >>> layer = TNEmbedding(1000, 16, bands=((100, None), (900, 4)))
    >>> layer(ops.array([[1, 2, 999]])).shape, layer.count_params() - 1000 == 100 * 16 + 900 * 4 + 4 * 16
    (TensorShape([1, 3, 16]), True)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        bands: Iterable[Sequence],
        mask_zero: bool = False,
        factor_initializer=None,
        factor_regularizer=None,
        factor_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.bands = checked_bands(bands, input_dim, output_dim)
        self.mask_zero = mask_zero
        self.factor_initializer = keras.initializers.get(factor_initializer)
        self.factor_regularizer = keras.regularizers.get(factor_regularizer)
        self.factor_constraint = keras.constraints.get(factor_constraint)
        self.supports_masking = mask_zero
        self.autocast = False  # as in Embedding: rows are cast, not whole tables

    def build(self, input_shape=None):
        if self.built:
            return
        self.position = self.add_weight(
            name="position", shape=(self.input_dim,), dtype="int32", initializer=_in_order, trainable=False
        )
        self.tables, self.projections = [], []
        for k, (rows, rank) in enumerate(self.bands):
            stddev = EMBEDDING_STDDEV if rank is None else (EMBEDDING_STDDEV / rank**0.5) ** 0.5
            self.tables.append(self._factor(f"table_{k}", (rows, rank or self.output_dim), stddev))
            self.projections.append(rank and self._factor(f"projection_{k}", (rank, self.output_dim), stddev))
        self.built = True

    def _factor(self, name: str, shape: tuple[int, int], stddev: float):
        initializer = self.factor_initializer
        if initializer is None:
            initializer = keras.initializers.RandomNormal(stddev=stddev)
        elif hasattr(initializer, "clone"):  # without a seed it would give every factor the same numbers
            initializer = initializer.clone()
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=self.factor_regularizer,
            constraint=self.factor_constraint,
        )

    def assign(self, fit: EmbeddingFit) -> None:
        """Take the order and the factors of a fit with the same bands."""
        if fit.bands != self.bands:
            raise ValueError(f"{self.name} has the bands {self.bands}, but the fit has {fit.bands}.")
        self.position.assign(fit.position)
        for weight, value in zip((*self.tables, *self.projections), (*fit.tables, *fit.projections), strict=True):
            if weight is not None:
                weight.assign(value)

    def call(self, inputs):
        ids = inputs if keras.backend.standardize_dtype(inputs.dtype) in ("int32", "int64") else _int32(inputs)
        place = ops.reshape(ops.take(self.position, ids, axis=0), (-1,))  # [n]
        outputs, first = None, 0
        for (rows, _), table, projection in zip(self.bands, self.tables, self.projections, strict=True):
            # Every token is looked up in every band, which costs less than sorting tokens by bands, and any length
            # is one program; what counts is the last band that it reaches.
            row = ops.clip(place - first, 0, rows - 1)
            found = self._cast(ops.take(table, row, axis=0))  # [n, rank]
            if projection is not None:
                found = ops.matmul(found, self._cast(projection))  # [n, output_dim]
            reached = ops.expand_dims(place >= first, -1)
            outputs = found if outputs is None else ops.where(reached, found, outputs)
            first += rows
        return ops.reshape(outputs, (*ops.shape(ids), self.output_dim))

    def logits(self, inputs, dtype: str | None = None):
        """Products with the embeddings of all tokens, `[..., output_dim]` to `[..., input_dim]`, for tied outputs.

        The table is not multiplied out.

        Args:
            inputs: hidden states.
            dtype: to compute in; None: the layer's compute dtype.
        """
        dtype = dtype or self.compute_dtype
        lead = ops.shape(inputs)[:-1]
        states = ops.transpose(ops.reshape(ops.cast(inputs, dtype), (-1, self.output_dim)))  # [output_dim, n]
        parts = []
        for table, projection in zip(self.tables, self.projections, strict=True):
            codes = states if projection is None else ops.matmul(ops.cast(projection, dtype), states)  # [rank, n]
            parts.append(ops.matmul(ops.cast(table, dtype), codes))  # [rows, n]
        # Tokens stay in front, as rows are put in order faster than columns.
        found = ops.take(ops.concatenate(parts, axis=0), self.position, axis=0)  # [input_dim, n]
        return ops.reshape(ops.transpose(found), (*lead, self.input_dim))

    @property
    def embeddings(self):
        """The table `[input_dim, output_dim]` that the factors stand for, as a tensor: gradients flow through it."""
        if not self.built:
            raise AttributeError(f"{self.name} has no embeddings before it is built.")
        pairs = zip(self.tables, self.projections, strict=True)
        parts = [ops.convert_to_tensor(table) if p is None else ops.matmul(table, p) for table, p in pairs]
        return ops.take(ops.concatenate(parts, axis=0), self.position, axis=0)

    def _cast(self, values):
        return ops.cast(values, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "bands": [list(band) for band in self.bands],
            "mask_zero": self.mask_zero,
            "factor_initializer": keras.initializers.serialize(self.factor_initializer),
            "factor_regularizer": keras.regularizers.serialize(self.factor_regularizer),
            "factor_constraint": keras.constraints.serialize(self.factor_constraint),
        }


@keras.saving.register_keras_serializable(package="tncompress")
class TNReversibleEmbedding(TNEmbedding):
    """A `TNEmbedding` that also goes backwards, in the place of `keras.layers.ReversibleEmbedding`.

    `layer(states, reverse=True)` are the products of states `[..., output_dim]` with the embeddings of all tokens.

    Args:
        input_dim, output_dim, bands, mask_zero, factor_initializer, factor_regularizer, factor_constraint: as in
            `TNEmbedding`.
        tie_weights: backwards with the same factors; else with a table of its own, which stays whole.
        reverse_dtype, logit_soft_cap: as in `keras.layers.ReversibleEmbedding`.

    >>> layer = TNReversibleEmbedding(100, 8, bands=((100, 2),))
    >>> layer(layer(ops.array([[1, 2]])), reverse=True).shape
    TensorShape([1, 2, 100])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        bands: Iterable[Sequence],
        tie_weights: bool = True,
        mask_zero: bool = False,
        reverse_dtype=None,
        logit_soft_cap: float | None = None,
        **kwargs,
    ):
        super().__init__(input_dim, output_dim, bands, mask_zero=mask_zero, **kwargs)
        self.tie_weights = tie_weights
        self.reverse_dtype = reverse_dtype
        self.logit_soft_cap = logit_soft_cap

    def build(self, input_shape=None):
        if self.built:
            return
        super().build(input_shape)
        if not self.tie_weights:
            self.reverse_embeddings = self._factor(
                "reverse_embeddings", (self.output_dim, self.input_dim), EMBEDDING_STDDEV
            )

    def call(self, inputs, reverse=False):
        if not reverse:
            if self.mask_zero and keras.backend.is_float_dtype(inputs.dtype):  # states, as far as compute_mask knows
                raise ValueError(f"{self.name}: with mask_zero=True ids must be integers, got {inputs.dtype}.")
            return super().call(inputs)
        dtype = self.reverse_dtype or self.compute_dtype
        if self.tie_weights:
            logits = self.logits(inputs, dtype)
        else:
            logits = ops.matmul(ops.cast(inputs, dtype), ops.cast(self.reverse_embeddings, dtype))
        cap = self.logit_soft_cap
        return logits if cap is None else ops.multiply(ops.tanh(ops.divide(logits, cap)), cap)

    def compute_mask(self, inputs, mask=None):
        return None if keras.backend.is_float_dtype(inputs.dtype) else super().compute_mask(inputs)

    def compute_output_shape(self, input_shape, reverse=False):
        return (*input_shape[:-1], self.input_dim) if reverse else (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs, reverse=False):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, reverse), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "tie_weights": self.tie_weights,
            "reverse_dtype": self.reverse_dtype,
            "logit_soft_cap": self.logit_soft_cap,
        }


def _in_order(shape, dtype=None):
    return ops.arange(shape[0], dtype=dtype)


def _int32(values):
    return ops.cast(values, "int32")
