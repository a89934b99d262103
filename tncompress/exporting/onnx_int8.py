"""Weights of an ONNX file as int8, by ONNX Runtime's dynamic quantisation, with care for what lies within networks."""

from pathlib import Path
from typing import Any

import numpy as np

SMALLEST = 1024  # numbers; smaller weights are not worth a scale of their own
_MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")  # numbers, which stay as they are


def write_int8(plain: Path, place: Path) -> None:
    """Quantise an ONNX file.

    Dynamic quantisation gives all activations in a tensor one scale. What a matmul within a network gets from another
    one, without a LayerNorm or an activation between, is of very different sizes from bond index to bond index, and
    would lose the small ones: there weights alone are int8, and become float32 when the file is loaded. Scales belong
    to columns of weights.

    Args:
        plain: in float32.
        place: the file to write.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    inner = inner_matmuls(onnx.load(plain).graph)
    quantize_dynamic(plain, place, weight_type=QuantType.QInt8, per_channel=True, nodes_to_exclude=sorted(inner))
    proto = onnx.load(place)
    _store_as_int8(proto.graph, inner)
    onnx.save(proto, str(place))


def inner_matmuls(graph: Any) -> set[str]:
    """Names of matmuls by a weight whose input is the output of another one."""
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def is_by_weight(node: Any) -> bool:
        return node is not None and node.op_type == "MatMul" and node.input[1] in weights

    def source(node: Any) -> Any:
        maker = makers.get(node.input[0])
        return source(maker) if maker is not None and maker.op_type in _MOVING else maker

    return {node.name for node in graph.node if is_by_weight(node) and is_by_weight(source(node))}


def _store_as_int8(graph: Any, names: set[str]) -> None:
    """The weights of these matmuls as int8, with a node that multiplies them by the scales of their columns."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer if np.prod(tensor.dims) >= SMALLEST}
    done: set[str] = set()
    for node in [node for node in graph.node if node.name in names and node.input[1] in weights]:
        name = node.input[1]
        node.input[1] = f"{name}/float"
        if name in done:
            continue
        done.add(name)
        whole, scale = rounded(numpy_helper.to_array(weights[name]))
        parts = {f"{name}/int8": whole, f"{name}/scale": scale}
        graph.initializer.extend([numpy_helper.from_array(value, part) for part, value in parts.items()])
        axis = whole.ndim - 1
        graph.node.insert(0, helper.make_node("DequantizeLinear", list(parts), [f"{name}/float"], name, axis=axis))
    used = {name for node in graph.node for name in node.input}
    for name in done - used:
        graph.initializer.remove(weights[name])


def rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from -127 to 127, and the scales of the last axis by which they are multiplied.

    >>> whole, scale = rounded(np.array([[2.54, 0.0], [-1.0, 0.0]], "float32"))
    >>> whole.tolist(), scale.tolist()
    ([[127, 0], [-50, 0]], [0.019999999552965164, 1.0])
    """
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    scale = np.where(largest > 0, largest / 127, 1.0).astype("float32")
    return np.rint(weight / scale).astype("int8"), scale
