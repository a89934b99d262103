"""ONNX, by tf2onnx, in operations that engines know: their GELU, and plain matmuls that can be quantised."""

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tncompress.exporting.job import Job
from tncompress.exporting.onnx_int8 import write_int8
from tncompress.exporting.onnx_lean import lean

OPSET = 18  # the newest that tf2onnx writes
MOST_BYTES = 2_000_000_000  # a file is one message of protobuf, which ends at 2 GiB


def write(job: Job, place: Path) -> str:
    """Write the file; with int8, see `write_int8`.

    Raises:
        ValueError: the model is too large for one file.
        RuntimeError: ONNX lacks an operation.
    """
    size = sum(math.prod(weight.shape) * 4 for weight in job.model.weights)
    if size > MOST_BYTES:
        raise ValueError(f"The model {job.model.name!r} has {size:,} bytes, and an ONNX file holds {MOST_BYTES:,}.")
    import onnx

    plain = place.with_name("plain.onnx") if job.int8 else place
    onnx.save(converted(job), str(plain))
    if job.int8:
        with _quiet():
            write_int8(plain, place)
        plain.unlink()
    return f"ONNX opset {OPSET}"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, job.feed(inputs)), strict=True))


def converted(job: Job) -> Any:
    """The model as an `onnx.ModelProto`.

    Raises:
        RuntimeError: ONNX lacks an operation.
    """
    import onnx

    with _quiet():
        _patch()
        proto = _by_tf2onnx(job)
    unknown = sorted({node.op_type for node in proto.graph.node if not _is_known(node)})
    if unknown:  # tf2onnx leaves them in the graph
        raise RuntimeError(
            f"The model {job.model.name!r} needs {', '.join(unknown)}, which ONNX does not have; "
            "export it to another format."
        )
    _name_axes(proto, job)
    onnx.checker.check_model(proto)
    return proto


def _by_tf2onnx(job: Job) -> Any:
    with contextlib.suppress(Exception), lean():
        return traced(job)
    return traced(job)  # by itself it tries its optimizers on copies, and goes on without one that fails


def traced(job: Job) -> Any:
    """What tf2onnx makes of the model."""
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(
        job.function(),
        [job.inputs],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, []), "Einsum": (_einsum, [])},
    )
    return proto


def _is_known(node: Any) -> bool:
    import onnx

    return bool(node.domain) or onnx.defs.has(node.op_type, "")


def _name_axes(proto: Any, job: Job) -> None:
    """Axes of any length by what they are, instead of by numbers."""
    for tensor in (*proto.graph.input, *proto.graph.output):
        spec = job.inputs.get(tensor.name)
        for axis, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                own = "length" if axis == 1 else f"axis_{axis}"
                dim.dim_param = "batch" if axis == 0 else own if spec is not None else f"{tensor.name}_{axis}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that converters log."""
    loggers = [logging.getLogger(name) for name in (None, "tf2onnx")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _patch() -> None:
    """Let tf2onnx run with numpy 2, by the repair that Keras has and may drop once it needs none."""
    with contextlib.suppress(ImportError):
        from keras.src.export.tf2onnx_lib import patch_tf2onnx

        patch_tf2onnx()


# -- operations that tf2onnx lacks, or writes in a way that engines do not see through -----------------------


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """1 - erf(x); in a GELU, whose erfc(-x / sqrt 2) is 1 + erf(x / sqrt 2), so that engines find it."""
    (scaled,) = node.inputs
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    context.remove_node(node.name)
    one = context.make_const(f"{name}/one", np.array(1, "float32")).output[0]
    if scaled.type == "Mul" and scaled.inputs[0].type == "Neg" and _is_constant(scaled.inputs[1], 0.5**0.5):
        root = context.make_const(f"{name}/root", np.array(2**0.5, "float32")).output[0]
        scaled = context.make_node("Div", [scaled.inputs[0].input[0], root])
        operation = "Add"
    else:
        operation = "Sub"
    erf = context.make_node("Erf", [scaled.output[0]]).output[0]
    operands = [erf, one] if operation == "Add" else [one, erf]
    context.make_node(operation, operands, name=node.name, outputs=node.output, shapes=[shape], dtypes=[dtype])


def _is_constant(node: Any, value: float) -> bool:
    return node.is_const() and np.allclose(node.get_tensor_value(as_list=False), value, rtol=1e-6)


def _einsum(context: Any, node: Any, name: str, args: Any) -> None:
    """As a matmul, if it is one by a weight, e.g. a projection of attention: engines quantise those alone."""
    equation = node.get_attr("equation").s.decode().replace(" ", "")
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    axes = _projection(equation)
    if axes is None or len(node.input) != 2 or not node.inputs[1].is_const():
        for attribute in ("N", "T"):
            node.del_attr(attribute)
        node.set_attr("equation", equation)
        return
    lead, summed = axes
    weight = node.inputs[1].get_tensor_value(as_list=False)
    x, sizes = node.input[0], weight.shape
    context.remove_node(node.name)

    def reshaped(x: str, sizes: tuple[int, ...], **kwargs: Any) -> str:
        # A 0 is the size that the axis has.
        to = context.make_const(f"{name}/shape_{len(sizes)}", np.array([0] * lead + list(sizes), "int64")).output[0]
        return context.make_node("Reshape", [x, to], **kwargs).output[0]

    if summed > 1:
        x = reshaped(x, (math.prod(sizes[:summed]),))
    matrix = context.make_const(f"{name}/matrix", weight.reshape(math.prod(sizes[:summed]), -1)).output[0]
    last = {"name": node.name, "outputs": node.output, "shapes": [shape], "dtypes": [dtype]}
    if len(sizes) - summed == 1:
        context.make_node("MatMul", [x, matrix], **last)
    else:
        reshaped(context.make_node("MatMul", [x, matrix]).output[0], sizes[summed:], **last)


def _projection(equation: str) -> tuple[int, int] | None:
    """For the last axes of x times a weight, in order: how many axes lead, and how many are summed; else None.

    >>> _projection("abc,cde->abde"), _projection("abcd,cde->abe"), _projection("acbe,aecd->abcd")
    ((2, 1), (2, 2), None)
    """
    terms, _, y = equation.partition("->")
    x, _, weight = terms.partition(",")
    lead = next((k for k, axis in enumerate(x) if axis in weight), len(x))
    summed = len(x) - lead
    fits = x[lead:] == weight[:summed] and y == x[:lead] + weight[summed:] and lead and summed and y[lead:]
    plain = all(term.isalpha() and len(set(term)) == len(term) for term in (x, weight, y))
    return (lead, summed) if fits and plain else None
