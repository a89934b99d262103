"""The forms in which backends run a planned network fastest: the same map to rounding. `TNDense` asks here.

- TensorFlow's graphs on a CPU fuse MatMul + BiasAdd + activation into one operation of oneDNN, but not where a reshape
  stands between. A last step `[batch, blocks, k] @ [k, n]` has a bias of its own in every block; done block by block it
  is fused again. If the layer behind starts block by block too, it takes the blocks, and they are never put together.
- They multiply a few rows by a large matrix faster if both have a third axis, of one: another kernel does it.
- XLA on a CPU multiplies one row by a matrix several times more slowly than two rows.
- Elsewhere (JAX, PyTorch, eager TensorFlow, training) the plan is carried out as it is.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import keras
from keras import ops

from tncompress.hardware.machine import VARIABLE, known_machine
from tncompress.hardware.roofline import fastest
from tncompress.network.plan import Plan, arrange, carry_out, contract, contract_unflattened, plan
from tncompress.network.spec import Spec
from tncompress.network.steps import BATCH, Step

DEFAULT_TOKENS = 1024  # planned for where the number is not known, e.g. 8 texts of 128 tokens
FEWEST_ROWS = 64  # with fewer, starting the operations of many blocks takes longer than their fusion saves
MOST_BLOCKS = 16
FEW_ROWS = range(2, 25)  # with these a third axis gains 2 to 19 %, with one row or many it loses
LARGE = 500_000  # numbers in a matrix; with smaller ones it loses

# Operations of TensorFlow that treat every number by itself, if their other operands are single numbers.
# fmt: off
_ELEMENTWISE = {
    "AddV2", "Cast", "Const", "Elu", "Erf", "Erfc", "Exp", "Identity", "LeakyRelu", "Maximum", "Minimum", "Mul",
    "Neg", "Placeholder", "Pow", "RealDiv", "Relu", "Relu6", "Selu", "Sigmoid", "Softplus", "Sqrt", "Square", "Sub",
    "Tanh",
}
# fmt: on


def network_plan(spec: Spec, tokens: int | None) -> Plan:
    """The plan for a layer that sees so many vectors at once, by what is known of this machine; nothing is measured."""
    tokens = tokens if isinstance(tokens, int) and tokens > 0 else DEFAULT_TOKENS
    tokens = 1 << round(math.log2(tokens))  # one plan for all nearly equal numbers
    if _has_accelerator() and not os.environ.get(VARIABLE):
        return plan(spec, tokens)
    return fastest(spec, tokens, known_machine()).plan


def dense(spec: Spec, x: Any, cores: Sequence[Any], bias: Any = None, activation: Callable | None = None) -> Any:
    """`activation(x W + bias)`: `[batch, in_dim]` -> `[batch, out_dim]`.

    Args:
        spec: the network of W.
        x: rows; where `keeps_axes` says so, with any leading axes.
        cores: of the network.
        bias: `[out_dim]`, or None.
        activation: None, or one that `fuses`.
    """
    planned = network_plan(spec, vectors_of(x))
    if activation is not None and bias is not None and (x.shape[0] or DEFAULT_TOKENS) >= FEWEST_ROWS:
        count = _blocks(planned.steps[-1], spec)
        if count and planned.steps[-1].result == (BATCH, *spec.outputs):
            return _by_blocks(planned, count, x, cores, bias, activation)
    y = _mapped(planned, x, cores)
    if bias is not None:
        y = ops.add(y, bias)
    return y if activation is None else activation(y)


def fuses(activation: Callable | None, training: Any) -> bool:
    """Whether bias and activation are best applied to the rows of the last matmul, before these get another shape."""
    return activation is not None and not training and _is_cpu_graph() and is_elementwise(activation)


def vectors_of(x: Any) -> int | None:
    """How many there are, if that is known."""
    lead = x.shape[:-1]
    return math.prod(lead) if all(isinstance(size, int) for size in lead) else None  # exports have symbols


def keeps_axes() -> bool:
    """Whether leading axes are best left as they are, see `contract_unflattened`."""
    return _accelerator() == "tpu"


def _mapped(planned: Plan, x: Any, cores: Sequence[Any]) -> Any:
    """`x W` by the plan: `[batch, in_dim]` -> `[batch, out_dim]`."""
    spec, rows = planned.spec, x.shape[0]
    if keeps_axes():
        lead = ops.shape(x)[:-1]
        y = contract_unflattened(planned, ops.reshape(x, (*lead, *spec.shape(spec.inputs))), cores, ops.einsum)
        return ops.reshape(y, (*lead, spec.out_dim))
    if rows == 1 and _is_cpu_graph(xla=True):
        return _mapped(planned, ops.concatenate([x, x]), cores)[:1]
    count = _blocks(planned.steps[0], spec) if _is_cpu_graph() else 0
    parts = _parts(x, count) if count else None
    if parts:
        return _from_blocks(planned, parts, cores)
    y = contract(planned, _reshape(x, (-1, *spec.shape(spec.inputs))), cores, _FewRows if _is_cpu_graph() else ops)
    return _reshape(y, (-1, spec.out_dim))


class _FewRows:
    """What `contract` computes with in TensorFlow's graphs on a CPU."""

    reshape, transpose = staticmethod(ops.reshape), staticmethod(ops.transpose)

    @staticmethod
    def matmul(x: Any, y: Any) -> Any:
        import tensorflow as tf

        flat = len(x.shape) == len(y.shape) == 2
        if flat and x.shape[0] in FEW_ROWS and math.prod(y.shape) >= LARGE and x.dtype == tf.float32:
            return tf.squeeze(tf.matmul(x[None], y[None]), 0)
        return ops.matmul(x, y)


# -- block by block, in TensorFlow's graphs -----------------------------------------------------------------


def _blocks(step: Step, spec: Spec) -> int:
    """Number of blocks if a step is `[batch, blocks, k] @ [k, n]`, operands as they are stored; else 0."""
    blocks = step.kept_left[1:]
    is_plain = step.kept_left[:1] == (BATCH,) and step.left_modes == (*step.kept_left, *step.summed)
    count = math.prod(spec.shape(blocks))
    return count if is_plain and not step.shared and 1 < count <= MOST_BLOCKS else 0


def _by_blocks(planned: Plan, count: int, x: Any, cores: Sequence[Any], bias: Any, activation: Callable) -> Any:
    """All steps, the last one with bias and activation block by block."""
    import tensorflow as tf

    spec, last = planned.spec, planned.steps[-1]
    size = {**spec.size, BATCH: -1}
    operands = [ops.reshape(x, (-1, *spec.shape(spec.inputs))), *cores]
    operands = carry_out(planned.steps[:-1], operands, size, ops)
    rows = ops.reshape(operands[last.left], (-1, count * math.prod(spec.shape(last.summed))))
    weights = arrange(operands[last.right], last.right_modes, last.right_groups, size, ops)
    pairs = zip(tf.split(rows, count, axis=1), tf.split(bias, count), strict=True)
    return tf.concat([activation(tf.nn.bias_add(tf.matmul(part, weights), b)) for part, b in pairs], axis=1)


def _from_blocks(planned: Plan, parts: Sequence[Any], cores: Sequence[Any]) -> Any:
    """All steps, the first one block by block."""
    import tensorflow as tf

    spec, (first, *rest) = planned.spec, planned.steps
    size = {**spec.size, BATCH: -1}
    weights = arrange(cores[first.right - 1], first.right_modes, first.right_groups, size, ops)
    result = tf.concat([tf.matmul(part, weights) for part in parts], axis=1)
    operands = [core for k, core in enumerate(cores) if k != first.right - 1]
    operands.append(ops.reshape(result, tuple(size[mode] for mode in first.result)))
    y = carry_out(rest, operands, size, ops)[-1]
    modes = planned.steps[-1].result
    return _reshape(arrange(y, modes, ((BATCH,), spec.outputs), size, ops), (-1, spec.out_dim))


def _parts(x: Any, count: int) -> list[Any] | None:
    """The blocks of which a graph puts the rows x together, if they are so many equal ones; x is not read then."""
    import tensorflow as tf

    if not tf.is_symbolic_tensor(x):  # a constant that the graph captures
        return None
    width = x.shape[-1]
    while x.op.type == "Reshape" and x.op.inputs[0].shape[-1:] == [width]:  # leading axes, put on and off again
        x = x.op.inputs[0]
    if x.op.type != "ConcatV2" or len(x.shape) != 2:
        return None
    *parts, axis = x.op.inputs
    same = [part.shape[-1] for part in parts] == [width // count] * count
    return parts if same and tf.get_static_value(axis) in (1, -1) else None


@lru_cache(maxsize=256)
def is_elementwise(activation: Callable) -> bool:
    """Whether TensorFlow computes it with nothing but operations on single numbers, the same for all shapes."""
    if isinstance(activation, keras.layers.Layer):  # it may have weights, and be of one shape
        return False
    small, large = (_operations(activation, shape) for shape in ((2, 3), (5, 7)))
    return small is not None and small == large and {name for name, _ in small} <= _ELEMENTWISE


def _operations(activation: Callable, shape: tuple[int, int]) -> list[tuple[str, Any]] | None:
    """What a graph of it holds, with the numbers of constants; None if it has others than single ones, or is none."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, shape)
        try:
            y = activation(x)
        except Exception:  # whatever it needs, it is more than numbers one by one
            return None
    if getattr(y, "shape", None) != x.shape:
        return None
    operations = [op for op in graph.get_operations() if op is not x.op]
    constants = {op: tf.get_static_value(op.outputs[0]) for op in operations if op.type == "Const"}
    if any(value is None or value.size != 1 for value in constants.values()):
        return None
    return [(op.type, constants[op].item() if op in constants else None) for op in operations]


# -- where we are -------------------------------------------------------------------------------------------


def _is_cpu_graph(xla: bool = False) -> bool:
    """Whether operations now go into a graph of TensorFlow for a CPU, with or without XLA."""
    if keras.backend.backend() != "tensorflow" or _has_accelerator():
        return False
    import tensorflow as tf
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()) == xla


def _has_accelerator() -> bool:
    return _accelerator() != "cpu"


@cache
def _accelerator() -> str:
    """What arrays are on: "cpu", "gpu" or "tpu"."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return next((kind.lower() for kind in ("TPU", "GPU") if tf.config.list_physical_devices(kind)), "cpu")
    if backend == "jax":
        import jax

        return jax.default_backend()
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _reshape(x: Any, shape: tuple[int, ...]) -> Any:
    return x if len(x.shape) == len(shape) else ops.reshape(x, shape)
