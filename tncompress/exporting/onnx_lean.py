"""tf2onnx in a quarter of the memory: by itself it holds the weights of a model some forty times at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LARGE = 1 << 20  # bytes of a constant that is hidden from what computes constants
# What these give may be known although what they take is not.
SHAPES = ("Shape", "ShapeN", "Size", "Rank")
_LOCK = threading.Lock()  # what is replaced is replaced for all threads


@contextmanager
def lean() -> Iterator[None]:
    """Within it, tf2onnx makes the same of a function, without the copies of weights that it has no need of.

    Its optimizers then work on the graph itself and not on a copy each: an error of one ends the conversion.
    """
    from tf2onnx import graph as graphs
    from tf2onnx import optimizer, tf_loader

    written, optimize = graphs.Graph.update_proto, optimizer.optimize_graph

    def update_proto(graph: Any, external_tensor_storage: Any = None) -> None:
        # What is taken out of a message keeps its memory until the message goes, and every pass writes all of it again
        for node in graph.get_nodes():
            node._op = _without_contents(node.op)
        written(graph, external_tensor_storage)

    def optimize_graph(graph: Any, catch_errors: bool = True, optimizers: Any = None) -> Any:
        return optimize(graph, catch_errors=False, optimizers=optimizers)

    with (
        _LOCK,
        _replaced(tf_loader, "from_function", _frozen),
        _replaced(graphs.Graph, "update_proto", update_proto),
        _replaced(optimizer, "optimize_graph", optimize_graph),
    ):
        yield


@contextmanager
def _replaced(owner: Any, name: str, function: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _without_contents(node: Any) -> Any:
    """A new `onnx.NodeProto` that has neither inputs, outputs nor attributes, which `update_proto` writes."""
    return type(node)(name=node.name, op_type=node.op_type, domain=node.domain, doc_string=node.doc_string)


def _frozen(function: Any, input_names: list[str], output_names: list[str], large_model: bool = False) -> Any:
    """A graph of the function with its variables as constants, in which what depends on constants alone is computed."""
    import tensorflow as tf
    from tf2onnx import tf_loader

    # As a graph only; a function made of it again, as tf2onnx does for all but large models, is several copies
    graph = tf_loader.fix_freezing_errors_part2(tf_loader.convert_variables_to_constants_large_model(function))
    hidden = hide(graph)
    with tf.Graph().as_default():
        graph = tf_loader.tf_optimize(input_names, output_names, graph)
    for node in graph.node:
        if node.name in hidden:
            node.ParseFromString(hidden.pop(node.name))
    return graph


def hide(graph: Any) -> dict[str, bytes]:
    """Make placeholders of the large constants of a `GraphDef` of which nothing can be computed beforehand.

    Returns:
        The constants by name.
    """
    _skip_identities(graph)
    known = _known(graph)
    needed = {
        _owner(name) for node in graph.node if node.name in known and node.op != "Identity" for name in node.input
    }
    hidden = {}
    for node in graph.node:
        if node.op == "Const" and node.name not in needed and node.ByteSize() >= LARGE:
            hidden[node.name] = node.SerializeToString()
            shape = node.attr["value"].tensor.tensor_shape
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(shape)
            del node.attr["value"]
    return hidden


def _skip_identities(graph: Any) -> None:
    """Let nodes take constants themselves, where they take them through identities."""
    operations = {node.name: node.op for node in graph.node}
    through = {node.name: _owner(node.input[0]) for node in graph.node if node.op == "Identity"}
    for node in graph.node:
        for k, name in enumerate(node.input):
            while name in through:
                name = through[name]
            if operations.get(name) == "Const":
                node.input[k] = name


def _known(graph: Any) -> set[str]:
    """Names of nodes that depend on constants and shapes alone."""
    inputs = {node.name: set(map(_owner, node.input)) for node in graph.node if node.op != "Placeholder"}
    known = {node.name for node in graph.node if node.op in SHAPES}
    while more := {name for name, needed in inputs.items() if name not in known and needed <= known}:
        known |= more
    return known


def _owner(name: str) -> str:
    """The node that an input comes from.

    >>> _owner("dense/MatMul"), _owner("split:1"), _owner("^assert")
    ('dense/MatMul', 'split', 'assert')
    """
    return name.removeprefix("^").partition(":")[0]
