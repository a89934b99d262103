"""Interop with `tensornetwork`: a spec and its cores as connected Nodes, and a network of Nodes as a spec or a layer.

A mode of two cores is an edge, an open mode a dangling edge. A mode that more tensors share (hyper-edge, block mode) is
a `CopyNode`: the tensor that is one where all its indices agree. tensornetwork is loaded when first needed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np

from tncompress.network.spec import Spec

_NAME = re.compile(r"(?!__unnamed)[A-Za-z_][A-Za-z0-9_]*\Z")  # __unnamed_edge__: what tensornetwork calls most edges


def to_nodes(spec: Spec, cores: Sequence[Any]) -> tuple[list, list, list]:
    """The network as tensornetwork Nodes: those of the cores, in order, then the CopyNodes.

    Nodes, edges and axes bear the names of modes, so `from_nodes` finds the same spec again.

    Args:
        spec: the network.
        cores: arrays of the shapes `spec.core_shapes`.

    Returns:
        The nodes, and the dangling edges of the inputs and of the outputs in the order of `spec.inputs` and
        `spec.outputs`. Contracted with the edges in that order they give a tensor `[*input modes, *output modes]`.

    Raises:
        ValueError: if the cores do not have the spec's shapes.

    >>> import tensornetwork
    >>> spec = Spec.parse("i, i r, r o -> o", i=3, r=2, o=4)
    >>> nodes, in_edges, out_edges = to_nodes(spec, [np.ones((3, 2)), np.ones((2, 4))])
    >>> tensornetwork.contractors.auto(nodes, in_edges + out_edges).tensor.shape
    (3, 4)
    """
    import tensornetwork

    cores = [np.asarray(core) for core in cores]
    shapes = tuple(core.shape for core in cores)
    if shapes != spec.core_shapes:
        raise ValueError(f"{str(spec)!r} has cores of the shapes {spec.core_shapes}, got {shapes}.")
    core_nodes = [
        tensornetwork.Node(core, name=f"core_{k}", axis_names=list(modes))
        for k, (core, modes) in enumerate(zip(cores, spec.cores, strict=True))
    ]
    copies, in_edges, out_edges = [], {}, {}
    for mode, size in spec.sizes:
        legs = [node[mode] for node, modes in zip(core_nodes, spec.cores, strict=True) if mode in modes]
        opened = [edges for edges, modes in ((in_edges, spec.inputs), (out_edges, spec.outputs)) if mode in modes]
        degree = len(legs) + len(opened)
        if len(legs) == 2 == degree:
            tensornetwork.connect(*legs, name=mode)
            continue
        if len(legs) != 1 or degree != 2:
            copy = tensornetwork.CopyNode(
                degree, size, name=mode, axis_names=_numbered(mode, degree), dtype=cores[0].dtype
            )
            copies.append(copy)
            legs = [tensornetwork.connect(leg, copy[k], name=mode) for k, leg in enumerate(legs)]
            legs = copy.edges[len(legs) :]
        for edges, leg in zip(opened, legs, strict=True):
            leg.set_name(mode)
            edges[mode] = leg
    return core_nodes + copies, [in_edges[mode] for mode in spec.inputs], [out_edges[mode] for mode in spec.outputs]


def from_nodes(nodes: Iterable, in_edges: Sequence, out_edges: Sequence) -> tuple[Spec, list[np.ndarray]]:
    """The spec and the cores of a network of tensornetwork Nodes. The nodes stay as they are.

    CopyNodes become modes that several tensors share. Modes take the names of edges, else of axes; nameless ones are
    called by their role: i0, i1 ... for inputs, o0 ... for outputs, g0 ... for block modes, r0 ... for bonds.

    Args:
        nodes: all nodes of the network, connected or not. Their order is that of the cores; a set (as from
            `tensornetwork.reachable`) is put into the order in which a walk from the inputs meets them.
        in_edges: dangling edges that x enters at; the input's features are their indices, row-major.
        out_edges: all other dangling edges; likewise for y.

    Raises:
        TypeError: if something is not a Node or an Edge.
        ValueError: if a dangling edge is missing or named twice, an edge leaves the network, or the network is no
            Spec: a node joined to itself, a CopyNode with two inputs or two outputs, a mode in one place only.

    >>> import tensornetwork
    >>> a, b = tensornetwork.Node(np.ones((3, 2)), name="a"), tensornetwork.Node(np.ones((2, 4)), name="b")
    >>> _ = a[1] ^ b[0]
    >>> spec, cores = from_nodes([a, b], in_edges=[a[0]], out_edges=[b[1]])
    >>> print(spec)
    i0, i0 r0, r0 o0 -> o0  (i0=3, o0=4, r0=2)
    """
    import tensornetwork

    in_edges, out_edges = list(in_edges), list(out_edges)
    _check_kinds(nodes, in_edges, out_edges, tensornetwork)
    nodes = _in_order(nodes, [*in_edges, *out_edges])
    _check_edges(nodes, in_edges, out_edges)
    core_nodes = [node for node in nodes if not isinstance(node, tensornetwork.CopyNode)]
    modes = _Modes(nodes, tensornetwork.CopyNode)
    terms = [tuple(map(modes.of, edges)) for edges in (in_edges, *(node.edges for node in core_nodes), out_edges)]
    _check_terms(terms, core_nodes, modes)
    names = modes.names(terms)
    inputs, *core_terms, outputs = [tuple(names[mode] for mode in term) for term in terms]
    sizes = {names[modes.of(edge)]: int(edge.dimension) for node in nodes for edge in node.edges}
    spec = Spec(inputs, tuple(core_terms), outputs, tuple(sizes.items()))
    return spec, [np.asarray(node.tensor) for node in core_nodes]


def layer_from_nodes(nodes: Iterable, in_edges: Sequence, out_edges: Sequence, activation=None, bias=None):
    """A built `TNDense` that holds a network of tensornetwork Nodes, to be used or trained in any Keras model.

    Args:
        nodes, in_edges, out_edges: as in `from_nodes`.
        activation: as in `keras.layers.Dense`.
        bias: `[out_dim]`; None for a layer without bias.

    Raises:
        TypeError, ValueError: as in `from_nodes`, and if the bias does not have the shape `[out_dim]`.

    >>> import tensornetwork
    >>> a, b = tensornetwork.Node(np.ones((3, 2))), tensornetwork.Node(np.ones((2, 4)))
    >>> _ = a[1] ^ b[0]
    >>> layer = layer_from_nodes([a, b], [a[0]], [b[1]], activation="relu", bias=np.ones(4))
    >>> layer(np.ones((1, 3))).shape, layer.count_params()
    (TensorShape([1, 4]), 18)
    """
    from tncompress.layers.dense import TNDense

    spec, cores = from_nodes(nodes, in_edges, out_edges)
    if bias is not None and np.shape(bias) != (spec.out_dim,):
        raise ValueError(f"The network has {spec.out_dim} outputs, so the bias needs the shape ({spec.out_dim},), "
                         f"got {np.shape(bias)}.")  # fmt: skip
    layer = TNDense(spec, activation=activation, use_bias=bias is not None)
    layer.build((None, spec.in_dim))
    layer.set_weights(cores if bias is None else [*cores, np.asarray(bias)])
    return layer


class _Modes:
    """Edges sorted into modes: edges that meet in a CopyNode are one mode. Its first edge's number stands for it."""

    def __init__(self, nodes: list, copy_node: type):
        self.edges = list(dict.fromkeys(edge for node in nodes for edge in node.edges))
        self._number = {edge: k for k, edge in enumerate(self.edges)}
        self._mode = list(range(len(self.edges)))
        for node in nodes:
            if isinstance(node, copy_node):
                met = {self.of(edge) for edge in node.edges}
                self._mode = [min(met) if mode in met else mode for mode in self._mode]

    def of(self, edge: Any) -> int:
        """The mode that an edge belongs to."""
        return self._mode[self._number[edge]]

    def names(self, terms: list[tuple[int, ...]]) -> dict[int, str]:
        """A name for every mode: the user's own where there is one, else by role. `terms`: inputs, cores, outputs."""
        ordered = list(dict.fromkeys(mode for term in terms for mode in term))
        own = {mode: next(self._own_names(mode), None) for mode in ordered}
        taken, names = set(filter(None, own.values())), {}
        for mode in ordered:
            name = own[mode]
            if name is None:
                name = _free(_role(mode, terms[0], terms[-1]), 0, taken)
            elif name in names.values():
                name = _free(f"{name}_", 2, taken)
            names[mode] = name
            taken.add(name)
        return names

    def _own_names(self, mode: int) -> Iterator[str]:
        edges = [edge for edge in self.edges if self.of(edge) == mode]
        yield from (edge.name for edge in edges if _NAME.match(edge.name or ""))
        for edge in edges:
            for node, axis in zip(edge.get_nodes(), (edge.axis1, edge.axis2), strict=True):
                if node is not None and _NAME.match(node.axis_names[axis]):
                    yield node.axis_names[axis]


def _role(mode: int, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> str:
    """First letter of a nameless mode: g block, i input, o output, r bond."""
    if mode in inputs:
        return "g" if mode in outputs else "i"
    return "o" if mode in outputs else "r"


def _free(stem: str, start: int, taken: set[str]) -> str:
    return next(name for k in count(start) if (name := f"{stem}{k}") not in taken)


def _numbered(mode: str, count: int) -> list[str]:
    return [f"{mode}_{k}" for k in range(count)]  # axis names of one node must differ


def _in_order(nodes: Iterable, edges: list) -> list:
    if not isinstance(nodes, (set, frozenset)):
        return list(nodes)
    queue, met = [edge.node1 for edge in edges], {}
    while queue:
        node = queue.pop(0)
        if node in nodes and node not in met:
            met[node] = None
            queue += [n for edge in node.edges for n in edge.get_nodes() if n is not None]
    return [*met, *sorted(nodes - set(met), key=lambda node: node.name)]


def _check_kinds(nodes: Iterable, in_edges: list, out_edges: list, tensornetwork: Any) -> None:
    for node in nodes:
        if not isinstance(node, tensornetwork.AbstractNode):
            raise TypeError(f"`nodes` takes tensornetwork Nodes, got {type(node).__name__}.")
    for word, edges in (("in_edges", in_edges), ("out_edges", out_edges)):
        for edge in edges:
            if not isinstance(edge, tensornetwork.Edge):
                raise TypeError(f"`{word}` takes tensornetwork Edges, e.g. node[0], got {edge!r}.")
        if not edges:
            raise ValueError(f"`{word}` is empty; a layer needs at least one edge there.")


def _check_edges(nodes: list, in_edges: list, out_edges: list) -> None:
    inside, named = set(nodes), set()
    if len(inside) != len(nodes):
        raise ValueError("`nodes` holds a node twice; give every node once.")
    for edge in (*in_edges, *out_edges):
        where = f"axis {edge.axis1} of node {edge.node1.name!r}"
        if not edge.is_dangling():
            raise ValueError(f"The edge at {where} is connected; inputs and outputs must be dangling edges.")
        if edge.node1 not in inside:
            raise ValueError(f"The edge at {where} is not of this network; add its node to `nodes`.")
        if edge in named:
            raise ValueError(f"The edge at {where} is named twice in `in_edges` and `out_edges`; name it once.")
        named.add(edge)
    for node in nodes:
        if not node.edges:
            raise ValueError(f"Node {node.name!r} is a scalar; multiply it into another node.")
        for axis, edge in enumerate(node.edges):
            if edge.is_dangling() and edge not in named:
                raise ValueError(f"Axis {axis} of node {node.name!r} dangles; put it in `in_edges` or `out_edges`.")
            for other in edge.get_nodes():
                if other is not None and other not in inside:
                    raise ValueError(
                        f"Axis {axis} of node {node.name!r} leads to {other.name!r}, which is not in `nodes`; add it."
                    )


def _check_terms(terms: list[tuple[int, ...]], core_nodes: list, modes: _Modes) -> None:
    if not core_nodes:
        raise ValueError("The network has CopyNodes only; a Spec needs at least one core, so add a Node with weights.")
    for node, term in zip(core_nodes, terms[1:-1], strict=True):
        if len(set(term)) < len(term):
            raise ValueError(
                f"Node {node.name!r} is joined to itself; contract that edge first (tensornetwork.contract_trace_edges "
                "for a trace), since no core of a Spec has a mode twice."
            )
    for word, term in (("inputs", terms[0]), ("outputs", terms[-1])):
        if len(set(term)) < len(term):
            raise ValueError(f"A CopyNode joins two {word}; a Spec has every mode once among its {word}.")
    uses = Counter(mode for term in terms for mode in term)
    for edge in modes.edges:
        if uses[modes.of(edge)] < 2:
            raise ValueError(
                f"The mode at axis {edge.axis1} of node {edge.node1.name!r} meets no other tensor than a CopyNode; "
                "sum it out before."
            )
