"""Networks of tensornetwork Nodes as specs and layers, and back."""

import subprocess
import sys

import numpy as np
import pytest
import tensornetwork as tn
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays, specs

from tncompress import FORMS, Spec, to_dense
from tncompress.interop import from_nodes, layer_from_nodes, to_nodes

SOME = settings(max_examples=150, deadline=None, derandomize=True)


def contracted(nodes, in_edges, out_edges):
    """The kernel `[in_dim, out_dim]` as tensornetwork computes it. Uses the nodes up."""
    rows = int(np.prod([edge.dimension for edge in in_edges]))
    return np.asarray(tn.contractors.auto(nodes, [*in_edges, *out_edges]).tensor).reshape(rows, -1)


@SOME
@given(specs(), st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_same_spec_with_the_same_cores(spec, seed):
    _, cores = arrays(spec, seed)
    again, same = from_nodes(*to_nodes(spec, cores))
    assert again == spec
    for core, other in zip(cores, same, strict=True):
        np.testing.assert_array_equal(core, other)


def _roles(spec):
    blocks = len(spec.block_modes)
    return {"i": len(spec.inputs) - blocks, "o": len(spec.outputs) - blocks, "g": blocks, "r": len(spec.bonds)}


@SOME
@given(specs(max_size=2), st.integers(0, 2**32 - 1))
def test_nameless_nodes_give_the_same_map(spec, seed):
    _, cores = arrays(spec, seed)
    nodes, in_edges, out_edges = to_nodes(spec, cores)
    for node in nodes:
        node.axis_names = [str(k) for k in range(len(node.edges))]
        for edge in node.edges:
            edge.name = "__unnamed_edge__"
    again, same = from_nodes(nodes, in_edges, out_edges)
    assert set(again.size) == {f"{letter}{k}" for letter, count in _roles(spec).items() for k in range(count)}
    np.testing.assert_array_equal(to_dense(again, same), to_dense(spec, cores))


def ring(rng):
    """A ring of two tensors with two bonds: a user's network that no form of ours has."""
    a, b = tn.Node(rng.normal(size=(2, 3, 4, 5)), name="a"), tn.Node(rng.normal(size=(4, 5, 3, 2)), name="b")
    a[2] ^ b[0]
    a[3] ^ b[1]
    return [a, b], [a[0], b[2]], [a[1], b[3]]


def disconnected(rng):
    """Two maps side by side: a Kronecker product."""
    a, b = tn.Node(rng.normal(size=(2, 3))), tn.Node(rng.normal(size=(4, 5)))
    return [a, b], [a[0], b[0]], [b[1], a[1]]


def shared_by_four(rng):
    """CP with its hyper-edge out of two CopyNodes joined to each other."""
    factors = [tn.Node(rng.normal(size=(size, 3)), name=f"f{size}") for size in (2, 3, 4, 5)]
    one, two = tn.CopyNode(3, 3), tn.CopyNode(3, 3)
    one[0] ^ factors[0][1]
    one[1] ^ factors[1][1]
    one[2] ^ two[1]
    two[0] ^ factors[2][1]
    two[2] ^ factors[3][1]
    return [*factors, one, two], [factors[0][0], factors[1][0]], [factors[2][0], factors[3][0]]


def diagonal(rng):
    """y = d * x: a block mode."""
    core, copy = tn.Node(rng.normal(size=(4,)), name="d"), tn.CopyNode(3, 4)
    core[0] ^ copy[1]
    return [core, copy], [copy[0]], [copy[2]]


def with_an_identity(rng):
    """A block mode that no core sees, as a CopyNode of order two."""
    core, copy = tn.Node(rng.normal(size=(2, 3))), tn.CopyNode(2, 4)
    return [core, copy], [copy[0], core[0]], [core[1], copy[1]]


def copy_node_in_the_way(rng):
    """An edge with a CopyNode of order two in it, and a CopyNode joined to itself."""
    a, b = tn.Node(rng.normal(size=(2, 3))), tn.Node(rng.normal(size=(3, 4)))
    one, two = tn.CopyNode(2, 3), tn.CopyNode(4, 3)
    a[1] ^ one[0]
    one[1] ^ two[0]
    two[1] ^ two[2]
    two[3] ^ b[0]
    return [a, b, one, two], [a[0]], [b[1]]


def island(rng):
    """Two tensors that meet each other only: a factor."""
    a, b, c = (tn.Node(rng.normal(size=shape)) for shape in ((2, 3), (4,), (4,)))
    b[0] ^ c[0]
    return [a, b, c], [a[0]], [a[1]]


NETWORKS = [ring, disconnected, shared_by_four, diagonal, with_an_identity, copy_node_in_the_way, island]
EQUATIONS = {
    ring: "i0 i1, i0 o0 r0 r1, r0 r1 i1 o1 -> o0 o1",
    disconnected: "i0 i1, i0 o0, i1 o1 -> o1 o0",
    shared_by_four: "i0 i1, i0 r0, i1 r0, o0 r0, o1 r0 -> o0 o1",
    diagonal: "g0, g0 -> g0",
    with_an_identity: "g0 i0, i0 o0 -> o0 g0",
    copy_node_in_the_way: "i0, i0 r0, r0 o0 -> o0",
    island: "i0, i0 o0, r0, r0 -> o0",
}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_a_users_network(network):
    spec, cores = from_nodes(*network(np.random.default_rng(0)))
    assert spec.equation == EQUATIONS[network]
    expected = contracted(*network(np.random.default_rng(0)))
    np.testing.assert_allclose(to_dense(spec, cores), expected, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_a_users_network_as_a_layer(network):
    rng = np.random.default_rng(1)
    expected = contracted(*network(np.random.default_rng(0)))
    x, bias = rng.normal(size=(5, len(expected))).astype(np.float32), rng.normal(size=expected.shape[1])
    plain = layer_from_nodes(*network(np.random.default_rng(0)))
    biased = layer_from_nodes(*network(np.random.default_rng(0)), activation="relu", bias=bias)
    assert not plain.use_bias
    # Sums of at most 8 values in float32, over two or three cores: tens of roundings of 6e-8.
    tolerance = 1e-5 * np.abs(x @ expected).max()
    np.testing.assert_allclose(np.asarray(plain(x)), x @ expected, atol=tolerance)
    np.testing.assert_allclose(np.asarray(biased(x)), np.maximum(x @ expected + bias, 0), atol=tolerance)


def test_the_users_nodes_stay_as_they_are():
    nodes, in_edges, out_edges = ring(np.random.default_rng(0))
    before = [node.tensor.copy() for node in nodes]
    from_nodes(nodes, in_edges, out_edges)
    assert nodes[0][2] is nodes[1][0]
    assert in_edges[0].is_dangling()
    for node, tensor in zip(nodes, before, strict=True):
        np.testing.assert_array_equal(node.tensor, tensor)


def test_a_set_of_nodes_is_walked_from_the_inputs():
    nodes, in_edges, out_edges = ring(np.random.default_rng(0))
    spec, _ = from_nodes(tn.reachable(nodes[0]), in_edges, out_edges)
    assert spec.equation == EQUATIONS[ring]


def test_modes_are_called_as_the_user_calls_edges_and_axes():
    a = tn.Node(np.ones((2, 3, 4)), axis_names=["rows", "columns", "bond"])
    b = tn.Node(np.ones((4, 5, 3)), axis_names=["bond", "columns", "left"])
    tn.connect(a["bond"], b["bond"])
    tn.connect(a["columns"], b["left"], name="middle")
    spec, _ = from_nodes([a, b], [a["rows"]], [b["columns"]])
    assert spec.equation == "rows, rows middle bond, bond columns middle -> columns"


def test_a_name_that_two_modes_want_is_numbered():
    a, b = (tn.Node(np.ones((2, 2)), axis_names=["in", "out"]) for _ in range(2))
    spec, _ = from_nodes([a, b], [a["in"], b["in"]], [a["out"], b["out"]])
    assert spec.equation == "in in_2, in out, in_2 out_2 -> out out_2"


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_every_form_there_and_back(form):
    spec = next(iter(form.candidates(12, 16, 150)))
    assert from_nodes(*to_nodes(spec, arrays(spec, 0)[1]))[0] == spec


def joined(*shapes):
    nodes = [tn.Node(np.ones(shape), name=f"node{k}") for k, shape in enumerate(shapes)]
    return nodes


def trace():
    (a,) = joined((2, 3, 4, 4))
    a[2] ^ a[3]
    return [a], [a[0]], [a[1]]


def trace_through_copy_node():
    (a,), copy = joined((2, 3, 4, 4)), tn.CopyNode(2, 4)
    a[2] ^ copy[0]
    a[3] ^ copy[1]
    return [a, copy], [a[0]], [a[1]]


def two_inputs_tied():
    (a,), copy = joined((2, 3)), tn.CopyNode(3, 2)
    a[0] ^ copy[0]
    return [a, copy], [copy[1], copy[2]], [a[1]]


def two_outputs_tied():
    (a,), copy = joined((2, 3)), tn.CopyNode(3, 3)
    a[1] ^ copy[0]
    return [a, copy], [a[0]], [copy[1], copy[2]]


def summed_out():
    (a,), copy = joined((2, 3, 4)), tn.CopyNode(1, 4)
    a[2] ^ copy[0]
    return [a, copy], [a[0]], [a[1]]


def copy_node_alone():
    (a,), copy = joined((2, 3)), tn.CopyNode(2, 4)
    copy[0] ^ copy[1]
    return [a, copy], [a[0]], [a[1]]


def copy_nodes_only():
    copy = tn.CopyNode(2, 3)
    return [copy], [copy[0]], [copy[1]]


def scalar():
    a, b = joined((2, 3), ())
    return [a, b], [a[0]], [a[1]]


def left_dangling():
    (a,) = joined((2, 3, 4))
    return [a], [a[0]], [a[1]]


def edge_twice():
    (a,) = joined((2, 3))
    return [a], [a[0]], [a[1], a[0]]


def edge_connected():
    a, b = joined((2, 3), (3, 4))
    edge = a[1] ^ b[0]
    return [a, b], [a[0]], [edge]


def node_forgotten():
    a, b = joined((2, 3), (3, 4))
    a[1] ^ b[0]
    return [a], [a[0]], [b[1]]


def node_forgotten_in_the_middle():
    a, b, c = joined((2, 3), (3, 4), (4, 5))
    a[1] ^ b[0]
    b[1] ^ c[0]
    return [a, c], [a[0]], [c[1]]


def node_twice():
    (a,) = joined((2, 3))
    return [a, a], [a[0]], [a[1]]


def no_inputs():
    (a,) = joined((2, 3))
    return [a], [], [a[0], a[1]]


REFUSED = [
    (trace, "'node0' is joined to itself; contract that edge first"),
    (trace_through_copy_node, "'node0' is joined to itself"),
    (two_inputs_tied, "CopyNode joins two inputs"),
    (two_outputs_tied, "CopyNode joins two outputs"),
    (summed_out, "axis 2 of node 'node0' meets no other tensor than a CopyNode; sum it out"),
    (copy_node_alone, "meets no other tensor than a CopyNode"),
    (copy_nodes_only, "CopyNodes only"),
    (scalar, "'node1' is a scalar; multiply it into another node"),
    (left_dangling, "Axis 2 of node 'node0' dangles; put it in"),
    (edge_twice, "axis 0 of node 'node0' is named twice"),
    (edge_connected, "axis 1 of node 'node0' is connected"),
    (node_forgotten, "axis 1 of node 'node1' is not of this network"),
    (node_forgotten_in_the_middle, "leads to 'node1', which is not in `nodes`; add it"),
    (node_twice, "holds a node twice"),
    (no_inputs, "`in_edges` is empty"),
]


@pytest.mark.parametrize(("network", "message"), REFUSED, ids=[r[0].__name__ for r in REFUSED])
def test_what_a_spec_cannot_express_is_refused_in_one_sentence(network, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        from_nodes(*network())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_things_than_nodes_and_edges():
    (a,) = joined((2, 3))
    with pytest.raises(TypeError, match="takes tensornetwork Nodes, got ndarray"):
        from_nodes([np.ones((2, 3))], [a[0]], [a[1]])
    with pytest.raises(TypeError, match="`in_edges` takes tensornetwork Edges"):
        from_nodes([a], [a], [a[1]])


def test_wrong_shapes():
    spec = Spec.parse("i, i o -> o", i=2, o=3)
    with pytest.raises(ValueError, match=r"cores of the shapes \(\(2, 3\),\), got \(\(3, 2\),\)"):
        to_nodes(spec, [np.ones((3, 2))])
    with pytest.raises(ValueError, match=r"bias needs the shape \(3,\), got \(2,\)"):
        layer_from_nodes(*to_nodes(spec, [np.ones((2, 3))]), bias=np.ones(2))


def test_importing_interop_loads_neither_keras_nor_tensornetwork():
    code = "import sys, tncompress.interop; print([m for m in ('keras', 'tensornetwork') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
