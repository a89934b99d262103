"""`TNDense`: a dense layer whose kernel is a tensor network. The only linear layer; its spec says which network."""

import math
from collections.abc import Mapping

import keras
from keras import ops

from tncompress.layers import fast_paths
from tncompress.layers.adaptable import Adaptable
from tncompress.layers.recompute import recomputed
from tncompress.network.plan import contract, to_dense
from tncompress.network.spec import Spec


@keras.saving.register_keras_serializable(package="tncompress")
class TNDense(Adaptable, keras.layers.Layer):
    """`activation(x W + bias)` with W given by the cores of a spec and never multiplied out.

    Input `[..., *in_shape]`, output `[..., *out_shape]`, by default `[..., in_dim]` and `[..., out_dim]`; any number of
    leading axes, of any or unknown length.

    Args:
        spec: the network, or its config.
        activation: as in `keras.layers.Dense`.
        use_bias: add a bias `[out_dim]`.
        core_initializer: of every core. None: normal, with the standard deviation that gives the outputs the variance
            which Dense's default (Glorot) gives them.
        bias_initializer, core_regularizer, bias_regularizer, core_constraint, bias_constraint: as in
            `keras.layers.Dense`; those of cores act on every core by itself.
        in_shape, out_shape: trailing axes, where features have several, e.g. `out_shape=(heads, head_size)` in the
            place of an `EinsumDense` of attention. None: one axis.

    Raises:
        ValueError: if a shape has another size than the spec; at build, if the input ends in other axes.

    >>> from tncompress.forms import low_rank
    >>> layer = TNDense(low_rank.spec(8, 4, rank=2), activation="relu")
    >>> layer(ops.ones((3, 5, 8))).shape
    TensorShape([3, 5, 4])
    """

    def __init__(
        self,
        spec: Spec | Mapping,
        activation=None,
        use_bias=True,
        core_initializer=None,
        bias_initializer="zeros",
        core_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        core_constraint=None,
        bias_constraint=None,
        in_shape=None,
        out_shape=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.spec = spec if isinstance(spec, Spec) else Spec.from_config(spec)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.core_initializer = keras.initializers.get(core_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.core_regularizer = keras.regularizers.get(core_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.core_constraint = keras.constraints.get(core_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.in_shape = tuple(in_shape) if in_shape else (self.spec.in_dim,)
        self.out_shape = tuple(out_shape) if out_shape else (self.spec.out_dim,)
        self.supports_masking = True
        for shape, size in ((self.in_shape, self.spec.in_dim), (self.out_shape, self.spec.out_dim)):
            if math.prod(shape) != size:
                raise ValueError(f"{self.name}: the spec {str(self.spec)!r} has {size} features, not {shape}.")

    @property
    def stored_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the cores' weights."""
        return self.spec.core_shapes

    def build(self, input_shape):
        if tuple(input_shape[-len(self.in_shape) :]) != self.in_shape:
            found = input_shape[-1] if len(self.in_shape) == 1 else tuple(input_shape[-len(self.in_shape) :])
            raise ValueError(
                f"{self.name}: the spec {str(self.spec)!r} maps {self.spec.in_dim} features, but the input has "
                f"{found} (shape {tuple(input_shape)}). Make the spec for in_dim={input_shape[-1]}."
            )
        self.cores = [
            self.add_weight(
                name=f"core_{k}",
                shape=shape,
                initializer=self._initializer(),
                regularizer=self.core_regularizer,
                constraint=self.core_constraint,
            )
            for k, shape in enumerate(self.stored_shapes)
        ]
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self.out_shape,
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        axes = {axis - len(self.in_shape): size for axis, size in enumerate(self.in_shape)}
        self.input_spec = keras.layers.InputSpec(min_ndim=1 + len(self.in_shape), axes=axes)

    def _initializer(self):
        if self.core_initializer is None:
            return keras.initializers.RandomNormal(stddev=core_stddev(self.spec))
        # An initializer without a seed still gives every core the same numbers; a copy draws others.
        return self.core_initializer.clone() if hasattr(self.core_initializer, "clone") else self.core_initializer

    def call(self, inputs, training=None):  # named as in Dense, which may be called by keyword
        is_flat = len(inputs.shape) == 2 and len(self.in_shape) == len(self.out_shape) == 1
        lead = ops.shape(inputs)[: -len(self.in_shape)]
        rows = lead if fast_paths.keeps_axes() else (-1,)
        x = inputs if is_flat else ops.reshape(inputs, (*rows, self.spec.in_dim))  # [batch, in_dim]
        fused = fast_paths.fuses(self.activation, training)
        y = self.mapped(x, self.activation if fused else None)  # [batch, out_dim]
        if not is_flat:
            y = ops.reshape(y, (*lead, *self.out_shape))
        if fused or self.activation is None:
            return y
        return (recomputed(self.activation) if training else self.activation)(y)

    def mapped(self, x, activation):
        """`[batch, in_dim]` to `activation(x W + bias)`, `[batch, out_dim]`."""
        bias = None if self.bias is None else ops.reshape(self.bias, (-1,))
        return fast_paths.dense(self.spec, x, self.tensors(), bias, activation)

    def contracted(self, x):
        """`[batch, *in_modes]`, contracted with the cores to `[batch, *out_modes]`."""
        return contract(fast_paths.network_plan(self.spec, x.shape[0]), x, self.tensors(), ops)

    def tensors(self):
        """The cores as tensors, of the type that the layer computes in while it is called."""
        return [ops.convert_to_tensor(core) for core in self.cores]

    def compute_output_shape(self, input_shape):
        return (*input_shape[: -len(self.in_shape)], *self.out_shape)

    def to_dense(self):
        """The kernel `[in_dim, out_dim]` that the cores stand for, as numpy."""
        return to_dense(self.spec, [ops.convert_to_numpy(core) for core in self.tensors()])

    def get_config(self):
        return {
            **super().get_config(),
            "spec": self.spec.to_config(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "core_initializer": keras.initializers.serialize(self.core_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "core_regularizer": keras.regularizers.serialize(self.core_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "core_constraint": keras.constraints.serialize(self.core_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "in_shape": self.in_shape,
            "out_shape": self.out_shape,
        }


def core_stddev(spec: Spec, kernel_stddev: float | None = None) -> float:
    """Standard deviation of core entries at which outputs have the variance that a dense kernel would give them.

    An entry of the kernel is a sum over all bonds of products of one entry a core; the variances multiply.

    Args:
        spec: the network.
        kernel_stddev: standard deviation of that dense kernel's entries; None: by Glorot's rule, 2 / (in + out).

    >>> round(core_stddev(Spec.parse("i, i r, r o -> o", i=50, r=4, o=50), kernel_stddev=0.1) ** 4 * 4, 6)
    0.01
    """
    # In a network with block modes an output sees but a part of the inputs, and its entries are larger for it.
    seen = math.prod(spec.shape(mode for mode in spec.inputs if mode not in spec.block_modes))
    variance = 2 / (spec.in_dim + spec.out_dim) if kernel_stddev is None else kernel_stddev**2
    return (variance * spec.in_dim / (seen * math.prod(spec.shape(spec.bonds)))) ** (1 / (2 * len(spec.cores)))
