"""What a graph of TensorFlow holds between the way there and the way back."""

from typing import Any


def forward_and_backward(graph: Any) -> tuple[set, set]:
    """The operations behind the graph's first output, and the others that its outputs need."""
    forward = ancestors([graph.outputs[0].op])
    return forward, ancestors([output.op for output in graph.outputs]) - forward


def held(graph: Any) -> dict[str, Any]:
    """Tensors that were made on the way there and are read on the way back, by name; views of one count once."""
    forward, backward = forward_and_backward(graph)
    taken = (source(tensor) for op in backward for tensor in op.inputs if tensor.op in forward)
    return {tensor.name: tensor for tensor in taken}


def ancestors(ops: list) -> set:
    """All operations that these need, themselves among them."""
    found, ops = set(), list(ops)
    while ops:
        op = ops.pop()
        if op not in found:
            found.add(op)
            ops += [tensor.op for tensor in op.inputs]
    return found


def source(tensor: Any) -> Any:
    """The tensor of which this one is another view."""
    if tensor.op.type not in ("Reshape", "Identity", "IdentityN"):
        return tensor
    return source(tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0])
