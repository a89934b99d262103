"""`TNFolded`: a network for inference, with its cores multiplied out once and kept as a dense kernel beside them."""

import keras
from keras import ops

from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted


class _Watched(keras.Variable):
    """A weight that tells a layer when it gets another value, also inside a compiled function."""

    def assign(self, value):
        result = super().assign(value)
        layer = getattr(self, "layer", None)
        if layer is not None:
            layer.fold()
        return result


class _Folded:
    """What a layer becomes by keeping its kernel: the same map, one matmul. See `TNFolded`."""

    def build(self, input_shape):
        super().build(input_shape)
        shape = (self.spec.in_dim, self.spec.out_dim)
        # By an initializer, so that a layer whose weights get their values later has them all then.
        kernel = self.add_weight(name="kernel", shape=shape, initializer=self._multiplied_out, trainable=False)
        self.kernel = _watched(kernel)
        self._watch(self)

    def add_weight(self, *args, name=None, **kwargs):
        is_core = name is not None and name.startswith("core_")
        # No optimizer may change a core: in a compiled step it would do so behind the back of `assign`.
        frozen = {**kwargs, "trainable": False} if is_core else kwargs
        variable = super().add_weight(*args, name=name, **frozen)
        return _watched(variable) if is_core else variable

    def _watch(self, layer):
        for variable in (*self.cores, self.kernel):
            variable.layer = layer

    def fold(self):
        """Multiply the cores out again; done by itself whenever one of them is assigned."""
        if any(core._value is None and core._initializer is None for core in self.cores):
            return  # JAX's trainer took all values away, and gives them back one by one, the kernel's too
        keras.Variable.assign(self.kernel, self._multiplied_out(self.kernel.shape))

    def _multiplied_out(self, shape, dtype=None):
        eye = ops.eye(self.spec.in_dim, dtype=dtype or self.variable_dtype)
        units = ops.reshape(eye, (-1, *self.spec.shape(self.spec.inputs)))
        return ops.reshape(self.contracted(units), shape)

    def call(self, inputs):
        lead = ops.shape(inputs)[: -len(self.in_shape)]
        y = ops.matmul(ops.reshape(inputs, (-1, self.spec.in_dim)), self.kernel)
        if self.bias is not None:
            y = ops.add(y, ops.reshape(self.bias, (-1,)))
        if len(self.out_shape) > 1:  # the activation may be one over the last axis
            y = ops.reshape(y, (*lead, *self.out_shape))
        if self.activation is not None:
            y = self.activation(y)
        return ops.reshape(y, (*lead, *self.out_shape))

    def _saved(self):
        """The weights that the layer without a kernel saves, in its order."""
        rest = [self.bias, getattr(self, "order", None)]
        return [*self.cores, *(variable for variable in rest if variable is not None)]

    def save_own_variables(self, store):
        for k, variable in enumerate(self._saved()):
            store[str(k)] = variable

    def load_own_variables(self, store):
        wanted = [tuple(variable.shape) for variable in self._saved()]
        try:
            found = [tuple(store[str(k)].shape) for k in range(len(wanted))]
        except KeyError:
            found = []
        if found != wanted:
            raise ValueError(f"{self.name}: its weights have the shapes {wanted}, those to load are others: {found}.")
        self._watch(None)  # fold once, not once a core
        try:
            for k, variable in enumerate(self._saved()):
                variable.assign(store[str(k)])
        finally:
            self._watch(self)
        self.fold()


def _watched(variable: keras.Variable) -> keras.Variable:
    variable.__class__ = _Watched
    return variable


@keras.saving.register_keras_serializable(package="tncompress", name="TNFolded")
class TNFolded(_Folded, TNDense):
    """`TNDense` that multiplies by a dense kernel, which it computes from its cores and keeps.

    For inference, see `tncompress.fold`: it takes the memory of the kernel and of the cores. The cores are not
    trainable; a new value assigned to one of them changes the kernel too (after a change behind the back of Keras's
    `assign`, call `fold`). Files hold the cores alone.

    >>> from tncompress.forms import low_rank
    >>> layer = TNFolded(low_rank.spec(8, 6, rank=2))
    >>> tuple(layer(ops.ones((3, 8))).shape), tuple(layer.kernel.shape)
    ((3, 6), (8, 6))
    """


@keras.saving.register_keras_serializable(package="tncompress", name="TNFoldedPivoted")
class TNFoldedPivoted(_Folded, TNPivoted):
    """`TNPivoted` likewise."""


# Keras makes the names of weights in files of a layer's class, and files hold what the layer is without its kernel.
TNFolded.__name__, TNFoldedPivoted.__name__ = TNDense.__name__, TNPivoted.__name__
