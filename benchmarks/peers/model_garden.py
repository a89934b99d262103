"""`TNExpandCondense` of TensorFlow Model Garden: TN-BERT's feed-forward layer as its authors wrote it.

The layer itself needs `tf-models-official` 2.20 (`make .venv/oracle` installs it without its many dependencies). Where
that is absent, `operations` runs the same sequence of operations on weights of the same shapes: written down from
official/nlp/modeling/layers/tn_expand_condense.py of that release, `call`, Apache License 2.0.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

BOND = 128


def layer(width: int, multiplier: int, activation: Callable[[Any], Any]) -> tuple[str, Callable[[Any], Any]]:
    """A new layer with random weights, and what it is: `[rows, width] -> [rows, width]`.

    Args:
        width: of inputs and outputs, a multiple of 128.
        multiplier: hidden units over width.
        activation: on the hidden units, of TensorFlow tensors.
    """
    if find_spec("official") is None:
        return "Model Garden's operations", operations(width, multiplier, activation)
    from official.nlp.modeling.layers.tn_expand_condense import TNExpandCondense

    return "Model Garden", TNExpandCondense(multiplier, activation=activation, bias_initializer="glorot_uniform")


def operations(width: int, multiplier: int, activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The sequence of operations, on random weights of the layer's shapes."""
    import numpy as np
    import tensorflow as tf

    draw, blocks, wide = np.random.default_rng(0), width // BOND, BOND * multiplier
    shapes = ((width, width), (BOND, wide), (wide, BOND), (blocks, BOND, width), (blocks, 1, wide))
    weights = [tf.Variable(draw.normal(0, 0.05, shape).astype("float32")) for shape in shapes]
    return lambda inputs: expand_condense(inputs, *weights, activation)


def expand_condense(inputs: Any, w1: Any, w2: Any, w3: Any, w4: Any, bias: Any, activation: Callable) -> Any:
    """As in the layer's `call`, with its names and letters: a blocks, b bond, d wide side of a block, Q rows."""
    import tensorflow as tf

    width = inputs.shape[-1]
    x = tf.reshape(inputs, (-1, width))
    x = tf.einsum("ab,Qb->aQ", w1, x)
    x = tf.reshape(x, (width // BOND, BOND, -1))
    x = tf.einsum("abQ,bd->aQd", x, w2)
    x = activation(x + bias)
    x = tf.einsum("aQd,db->aQb", x, w3)
    x = tf.einsum("aQb,abd->Qd", x, w4)
    return tf.reshape(x, tf.shape(inputs))
