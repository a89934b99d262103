"""Copies of models, and layers put in the place of others. The one file that touches Keras's private parts.

Keras has no way to exchange a layer of a built model: attributes are locked, graphs hold their operations, lists and
dicts of layers are tracked elsewhere. So the layer object stays where it is, wherever it is referenced, and becomes
another one: its class and its state are those of the new layer. Shared layers stay shared by themselves. See
docs/converting.md for the ways that were compared.
"""

import re
import tempfile
from collections.abc import Collection, Mapping
from copy import deepcopy

import keras
import numpy as np
from keras import ops

from tncompress.conversion.dense_maps import DenseLayer, dense_map
from tncompress.conversion.walking import locate, walk
from tncompress.fitting.choice import Choice
from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted
from tncompress.limits import MOST_TOLD


def model_config(model: keras.Model) -> dict:
    """What `rebuilt` makes the model of again, without its weights and without how it was compiled.

    Raises:
        ValueError: if the model cannot describe itself.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception as error:  # whatever a user's get_config raises
        raise ValueError(
            f"The model {model.name!r} cannot be copied because it has no config ({first_line(error)}). Give its class "
            f"{type(model).__name__} a get_config() with the arguments of its constructor."
        ) from None
    config.pop("compile_config", None)
    return config


def rebuilt(config: Mapping, classes: Mapping[str, type] | None = None, *, trusted: bool = False) -> keras.Model:
    """A new, built model with fresh weights.

    Args:
        config: from `model_config`.
        classes: by name, those that are not registered with Keras.
        trusted: it is of a model that is already in this process, so its Lambda layers are no danger.

    Raises:
        ValueError: if Keras cannot make it.
    """
    try:
        # Keras takes parts out of a config that it reads. Its custom_object_scope would hide the scope that we are in.
        return keras.saving.deserialize_keras_object(deepcopy(config), dict(classes or {}), safe_mode=not trusted)
    except Exception as error:
        raise ValueError(
            f"The model cannot be made from its own config ({first_line(error)}). A class of your own takes **kwargs "
            "in its constructor, hands them on, and returns its arguments from get_config()."
        ) from None


def copy_model(model: keras.Model) -> keras.Model:
    """The same model with the same weights, sharing nothing with the given one and not compiled.

    Raises:
        ValueError: if the copy's layers or weights are others than the model's.
    """
    for path, layer in (("", model), *walk(model)):
        if hasattr(type(layer).call, "get_concrete_function"):
            raise ValueError(
                f"The layer {path or model.name!r} has @tf.function on its call, which would go on computing with "
                "the old weights; remove it, Keras compiles by itself."
            )
    copy = rebuilt(model_config(model), classes_of(model), trusted=True)
    copy_weights(model, copy)
    return copy


def copy_weights(source: keras.Model, target: keras.Model, skip: Collection[keras.layers.Layer] = ()) -> None:
    """Give every layer of `target` the state of the layer at the same path of `source`, but for layers in `skip`.

    That is its weights, whether it is trainable, and what else it would save, such as a vocabulary.

    Raises:
        ValueError: if the two have other layers, or layers of other shapes.
    """
    ours, theirs = {"": source, **dict(walk(source))}, {"": target, **dict(walk(target))}
    if ours.keys() != theirs.keys():
        difference = ", ".join(sorted(ours.keys() ^ theirs.keys())[:5])
        raise ValueError(
            f"The model {source.name!r} made from its own config has other layers ({difference}); its get_config() "
            "must hold all arguments of the constructor, and its sublayers must be made in __init__ or build()."
        )
    for path, layer in ours.items():
        if theirs[path].trainable != layer.trainable:
            theirs[path].trainable = layer.trainable  # parents come first: they set it for all below
        if any(layer is one for one in skip):
            continue
        try:
            copy_state(layer, theirs[path])
        except Exception as error:
            raise ValueError(
                f"The layer {path or source.name!r} made from its own config takes other weights "
                f"({first_line(error)}); build its sublayers in build()."
            ) from None


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Give a layer what another one would save: its weights, and assets such as a vocabulary."""
    store: dict = {}
    source.save_own_variables(store)
    # Copies: JAX would let both variables share one buffer, and training the one gives it away under the other.
    target.load_own_variables({name: np.array(ops.convert_to_numpy(value)) for name, value in store.items()})
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def put_networks(model: keras.Model, choices: Mapping[str, Choice]) -> dict[str, TNDense]:
    """Turn the dense layers at these paths into networks, in place, with all cores zero.

    The model must be fresh: compiled functions and optimizers would go on with the old layers.
    """
    dense = locate(model, list(choices))
    new = {path: network_for(layer, choices[path]) for path, layer in dense.items()}
    for path, layer in dense.items():
        become(layer, new[path])
    return new


def become(layer: keras.layers.Layer, other: keras.layers.Layer) -> None:
    """Make `layer` be `other`, wherever it is referenced: same state, same class. Only its place in graphs is kept."""
    other._inbound_nodes, other._outbound_nodes = layer._inbound_nodes, layer._outbound_nodes
    layer.__class__ = other.__class__
    # One state for both objects: methods that Keras bound to `other` when it was made act on the same layer.
    object.__setattr__(layer, "__dict__", other.__dict__)


def network_for(dense: DenseLayer, choice: Choice) -> TNDense:
    """An empty network that does what `dense` does besides its kernel."""
    shapes = {}
    if isinstance(dense, keras.layers.EinsumDense):
        found = dense_map(dense)  # features on one axis may be fewer than they were
        shapes = {"in_shape": found.in_shape, "out_shape": found.out_shape}
        shapes = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    layer = (TNPivoted if choice.pivots else TNDense)(
        choice.spec,
        activation=dense.activation,
        use_bias=dense.bias is not None,
        core_initializer="zeros",
        bias_initializer=dense.bias_initializer,
        core_regularizer=dense.kernel_regularizer,
        bias_regularizer=dense.bias_regularizer,
        activity_regularizer=dense.activity_regularizer,
        core_constraint=dense.kernel_constraint,
        bias_constraint=dense.bias_constraint,
        name=dense.name,
        dtype=dense.dtype_policy,
        trainable=dense.trainable,
        **shapes,
    )
    layer.build((None, *layer.in_shape))
    layer._path = dense.path
    return layer


def classes_of(model: keras.Model) -> dict[str, type]:
    """The classes of a model and its layers by name, but for those of Keras."""
    own = {type(layer) for layer in (model, *(layer for _, layer in walk(model)))}
    return {cls.__name__: cls for cls in own if not cls.__module__.startswith("keras.")}


def first_line(error: Exception) -> str:
    """What an error says, short enough to stand in a sentence; without the story that Keras tells around it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("Full object config:")[0]
    lines = [line.strip() for line in plain.splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    text = (told or [type(error).__name__])[0].rstrip(".")
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}..."  # some tell all of a config
