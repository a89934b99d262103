"""The fast forms in TensorFlow's graphs: the plain map to rounding, values and gradients, and fast because fused.

Other backends carry plans out as they are; see test_layers.py and test_candidates.py for those.
"""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress import Spec, plan
from tncompress.forms import expand_condense, low_rank
from tncompress.layers import fast_paths
from tncompress.layers.dense import TNDense
from tncompress.layers.feed_forward import TNFeedForward

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or bool(tf.config.list_physical_devices("GPU")),
    reason="these forms are for TensorFlow on a CPU",
)
NETWORK_PLAN = fast_paths.network_plan
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


@pytest.fixture(autouse=True, scope="module")
def _fewest_flops():
    """Networks as small as these are fastest in other orders than those that have fast forms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_paths, "network_plan", lambda spec, tokens: plan(spec, tokens or 1024))
        yield


def feed_forward(width=12, blocks=3, bond=4, wide=24, activation="gelu", **kwargs):
    expand = expand_condense.expand(width, wide, blocks, bond)
    layer = TNFeedForward(expand, expand_condense.condense(wide, width, blocks, bond), activation=activation, **kwargs)
    layer.build((None, None, width))
    draw = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(draw.normal(0, 0.4, weight.shape))
    return layer


def graph_of(layer, *shape, jit=False, training=False, dtype="float32"):
    function = tf.function(lambda x: layer(x, training=training), jit_compile=jit, autograph=False)
    return function.get_concrete_function(tf.TensorSpec(shape, dtype))


def operations(traced):
    """Types of what is computed for the output, and of nothing else."""
    whole = traced.graph.as_graph_def()
    needed = tf.compat.v1.graph_util.extract_sub_graph(whole, [traced.outputs[0].op.name])
    return [node.op for node in needed.node]


def rows(*shape, dtype="float32"):
    return tf.cast(np.random.default_rng(1).normal(size=shape), dtype)


def assert_close(found, expected, dtype="float32"):
    found, expected = (np.asarray(tf.cast(tensor, "float64")) for tensor in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_values_and_gradients_are_those_of_the_plain_path(data):
    """Eager TensorFlow carries the plan out as it is."""
    blocks, bond, part = (data.draw(st.integers(low, 4)) for low in (2, 1, 1))
    tokens, dtype = data.draw(st.sampled_from([64, 65, 130])), data.draw(st.sampled_from(["float32", "bfloat16"]))
    options = {"activation": data.draw(st.sampled_from(["gelu", "relu", "tanh", "softmax", None]))}
    options |= {"use_output_bias": data.draw(st.booleans()), "use_bias": data.draw(st.booleans())}
    width = data.draw(st.integers(1, 6))
    layer = feed_forward(width, blocks, bond, blocks * part, **options, dtype=dtype)
    x = rows(tokens, width, dtype=dtype)

    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_mean(tf.cast(y, "float32") ** 2)
        return y, *tape.gradient(total, [x, *(v.value for v in layer.trainable_variables)])

    known = data.draw(st.booleans())
    signature = [tf.TensorSpec([tokens if known else None, width], dtype)]
    fast = tf.function(both, input_signature=signature, autograph=False)(x)
    for found, expected in zip(fast, both(x), strict=True):
        assert_close(found, expected, dtype)


@pytest.mark.parametrize("shape", [(100, 12), (None, 12), (5, 20, 12), (None, None, 12)], ids=str)
def test_the_wide_side_is_never_put_together(shape):
    """A matmul with bias and activation for every block, which the next layer takes one by one."""
    layer = feed_forward()
    traced = graph_of(layer, *shape)
    found = operations(traced)
    assert found.count("Erfc") + found.count("Erf") == 3
    assert found.count("BiasAdd") == 3 + 1
    assert found.count("MatMul") == 1 + 3 + 3 + 1
    assert found.count("ConcatV2") == 1  # of the narrow blocks, before the last matmul
    x = rows(*[size or 7 for size in shape])
    assert_close(traced(x), layer(x))


@pytest.mark.parametrize(
    "options",
    [{"training": True}, {"jit": True}, {"shape": (8, 12)}, {"activation": "softmax"}, {"use_bias": False}],
    ids=["training", "xla", "few", "softmax", "no_bias"],
)
def test_the_plain_plan_where_blocks_would_not_pay(options):
    options = dict(options)
    shape = options.pop("shape", (100, 12))
    where = {key: options.pop(key) for key in ("training", "jit") if key in options}
    layer = feed_forward(**options)
    traced = graph_of(layer, *shape, **where)
    assert operations(traced).count("MatMul") == 4
    x = rows(*shape)
    assert_close(traced(x), layer(x))


@pytest.mark.parametrize(
    ("activation", "fused"),
    [
        ("gelu", b"GeluExact"),
        (lambda x: keras.activations.gelu(x, approximate=True), b"GeluApproximate"),
        ("relu", b"Relu"),
    ],
    ids=["gelu", "gelu_tanh", "relu"],
)
def test_tensorflow_fuses_the_blocks(activation, fused):
    """What the fast form is for, seen in the graph after TensorFlow's own optimisation."""
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.grappler import tf_optimizer

    traced = graph_of(feed_forward(64, 2, 32, 256, activation=activation), 128, 64)
    frozen = convert_variables_to_constants_v2(traced)
    meta = tf.compat.v1.train.export_meta_graph(graph_def=frozen.graph.as_graph_def(), graph=frozen.graph)
    meta.collection_def["train_op"].node_list.value.append(frozen.outputs[0].op.name)
    for node in meta.graph_def.node:
        node.device = "/job:localhost/replica:0/task:0/device:CPU:0"
    optimised = tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta)
    found = [node.attr["fused_ops"].list.s[:] for node in optimised.node if node.op == "_FusedMatMul"]
    if not found:
        pytest.skip("this TensorFlow fuses no matmuls: it is built without oneDNN, or the processor lacks AVX512")
    assert found.count([b"BiasAdd", fused]) == 2


def test_one_row_under_xla_is_sent_as_two():
    layer = feed_forward()
    traced = graph_of(layer, 1, 12, jit=True)
    assert {op.outputs[0].shape[0] for op in traced.graph.get_operations() if op.type == "MatMul"} >= {2}
    assert_close(traced(rows(1, 12)), layer(rows(1, 12)))


@pytest.mark.parametrize(
    ("shape", "dtype", "count"),
    [
        ((2, 1000), "float32", 1),
        ((3, 8, 1000), "float32", 1),
        ((1, 1000), "float32", 0),
        ((25, 1000), "float32", 0),
        ((None, 1000), "float32", 0),
        ((8, 1000), "bfloat16", 0),
    ],
    ids=str,
)
def test_a_few_rows_times_a_large_matrix_have_a_third_axis(shape, dtype, count):
    layer = TNDense(low_rank.spec(1000, 600, 500), activation="tanh", dtype=dtype)
    layer.build((None, 1000))
    traced = graph_of(layer, *shape, dtype=dtype)
    assert (operations(traced).count("BatchMatMulV2"), operations(traced).count("MatMul")) == (count, 2 - count)
    x = rows(*[size or 7 for size in shape], dtype=dtype)
    assert_close(traced(x), layer(x), dtype)


def test_what_is_no_join_of_the_right_blocks_is_read_whole():
    """Joins along another axis, of other sizes, or changed on the way."""
    condense = TNDense(expand_condense.condense(24, 12, 3, 4))
    condense.build((None, 24))
    x = rows(100, 24)
    joins = [
        lambda x: tf.concat(tf.split(x, 4, axis=0), 0),
        lambda x: tf.concat(tf.split(x, 2, axis=1), 1),
        lambda x: tf.concat([x[:, :4], x[:, 4:16], x[:, 16:]], 1),
        lambda x: 2 * tf.concat(tf.split(x, 3, axis=1), 1),
        lambda x: tf.reshape(tf.concat(tf.split(tf.reshape(x, (200, 12)), 3, axis=1), 1), (100, 24)),
    ]
    for join in joins:
        found = tf.function(lambda x, join=join: condense(join(x)), autograph=False)(x)
        assert_close(found, condense(join(x)))


def test_low_rank_is_two_matmuls_fused_with_its_bias():
    layer = TNDense(low_rank.spec(12, 16, 3), activation="gelu")
    layer.build((None, 12))
    found = operations(graph_of(layer, 4, 25, 12))
    assert found.count("MatMul") == 2
    assert found.count("Transpose") == found.count("BatchMatMulV2") == 0
    traced = graph_of(layer, 100, 12)
    assert "Reshape" not in [
        op.type for op in traced.graph.get_operations() if op.inputs and op.inputs[0].shape == (100, 16)
    ]


def test_a_layer_sees_other_plans_for_other_numbers_of_tokens():
    network_plan = NETWORK_PLAN
    train = Spec.parse("a b, a c r, r b d -> c d", a=24, b=32, c=48, d=64, r=8)
    few, many = network_plan(train, 1), network_plan(train, 4096)
    assert few.batch == 1
    assert many.batch == 4096
    assert network_plan(train, None).batch == fast_paths.DEFAULT_TOKENS
    assert network_plan(train, 1000) is network_plan(train, 1050)


ELEMENTWISE = {
    "gelu": keras.activations.gelu,
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "relu": keras.activations.relu,
    "tanh": keras.activations.tanh,
    "elu": keras.activations.elu,
}
OTHERS = {
    "softmax": keras.activations.softmax,
    "of_a_row": lambda x: x - keras.ops.max(x, axis=-1, keepdims=True),
    "by_place": lambda x: x * np.arange(3, dtype="float32"),
    "turned": lambda x: keras.ops.flip(x, axis=1),
    "other_shape": lambda x: x[:, :1],
    "random": lambda x: x * tf.random.uniform(()),
    "failing": lambda x: 1 / 0,
    "layer": keras.layers.PReLU(),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activations_of_single_numbers_are_known(name):
    assert fast_paths.is_elementwise(ELEMENTWISE[name])


@pytest.mark.parametrize("name", OTHERS)
def test_and_told_from_others(name):
    assert not fast_paths.is_elementwise(OTHERS[name])


@pytest.mark.parametrize("activation", ["layer", "width", "variable"])
def test_activations_that_are_no_function_of_single_numbers(activation):
    """They see all features at once, in graphs too."""
    slope = tf.Variable(2.0)
    given = {
        "layer": keras.layers.PReLU(),
        "width": lambda x: x * x.shape[-1],
        "variable": lambda x: x * tf.sigmoid(slope * x),
    }[activation]
    layer = feed_forward(activation=given)
    x = rows(70, 12)
    np.testing.assert_allclose(tf.function(layer)(x), layer(x), atol=1e-4)
    assert layer.expand(x).shape == (70, 24)


def test_constants_that_a_graph_captures():
    layer, x = feed_forward().condense, rows(70, 24)
    np.testing.assert_allclose(tf.function(lambda: layer(x))(), layer(x), atol=1e-5)
