"""`Spec` against a table of good and bad equations written by hand, and its round trips on random networks."""

import json

import pytest
from hypothesis import given, settings
from strategies import specs

from tncompress import Spec

# name, equation, sizes, (in_dim, out_dim, parameters), bonds, block modes
GOOD = [
    ("dense", "i, i o -> o", {"i": 3, "o": 4}, (3, 4, 12), (), ()),
    ("low rank", "i, i r, r o -> o", {"i": 3, "r": 2, "o": 4}, (3, 4, 14), ("r",), ()),
    ("Kronecker", "a b, a c, b d -> c d", {"a": 2, "b": 3, "c": 4, "d": 5}, (6, 20, 23), (), ()),
    (
        "sum of Kroneckers",
        "a b, a p r, b q r -> p q",
        {"a": 2, "b": 3, "p": 4, "q": 5, "r": 2},
        (6, 20, 46),
        ("r",),
        (),
    ),
    ("CP", "a b, a r, b r, p r, q r -> p q", {"a": 2, "b": 3, "p": 4, "q": 5, "r": 6}, (6, 20, 84), ("r",), ()),
    ("block-diagonal", "g i, g i o -> g o", {"g": 2, "i": 3, "o": 4}, (6, 8, 24), (), ("g",)),
    ("Monarch", "a b, a b c, a c d -> d c", {"a": 2, "b": 3, "c": 4, "d": 5}, (6, 20, 64), (), ()),
    (
        "block tensor train",
        "m1 m2, m1 m2 n1 r, m2 n1 r n2 -> n1 n2",
        {"m1": 2, "m2": 3, "n1": 4, "n2": 5, "r": 2},
        (6, 20, 48 + 120),
        ("r",),
        (),
    ),
    (
        "tensor train",
        "i0 i1, i0 o0 r1, r1 i1 o1 -> o0 o1",
        {"i0": 2, "i1": 3, "o0": 4, "o1": 5, "r1": 6},
        (6, 20, 48 + 90),
        ("r1",),
        (),
    ),
    (
        "Tucker",
        "a b, a r, b s, r s p q, p c, q d -> c d",
        {"a": 2, "b": 3, "c": 4, "d": 5, "r": 1, "s": 2, "p": 3, "q": 4},
        (6, 20, 2 + 6 + 24 + 12 + 20),
        ("r", "s", "p", "q"),
        (),
    ),
    (
        "butterfly",
        "a b c, a b c p, p b c q, p q c r -> p q r",
        {"a": 2, "b": 2, "c": 2, "p": 2, "q": 2, "r": 2},
        (8, 8, 48),
        (),
        (),
    ),
    ("Expand", "i, i c d, d e -> c e", {"i": 768, "c": 6, "d": 128, "e": 512}, (768, 3072, 655_360), ("d",), ()),
    ("Condense", "c e, e d, c d o -> o", {"c": 6, "e": 512, "d": 128, "o": 768}, (3072, 768, 655_360), ("d",), ()),
    ("block mode in no core", "a g, a b -> g b", {"a": 2, "b": 3, "g": 4}, (8, 12, 6), (), ("g",)),
    ("size one", "i, i o -> o", {"i": 1, "o": 1}, (1, 1, 1), (), ()),
    ("diagonal", "g, g -> g", {"g": 5}, (5, 5, 5), (), ("g",)),
    (
        "Python's words",
        "in, in equation sizes, cls equation sizes -> cls",
        dict.fromkeys(["in", "equation", "sizes", "cls"], 2),
        (2, 2, 16),
        ("equation", "sizes"),
        (),
    ),
    ("long names, odd spaces", "  x_1 ,x_1  Y2->Y2 ", {"x_1": 2, "Y2": 3}, (2, 3, 6), (), ()),
]


@pytest.mark.parametrize(
    ("equation", "sizes", "counts", "bonds", "blocks"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD]
)
def test_good_equations(equation, sizes, counts, bonds, blocks):
    spec = Spec.parse(equation, sizes)
    assert (spec.in_dim, spec.out_dim, spec.num_params) == counts
    assert spec.bonds == bonds
    assert spec.block_modes == blocks
    assert spec.equation == " ".join(equation.replace(",", " , ").replace("->", " -> ").split()).replace(" ,", ",")
    assert eval(repr(spec), {"Spec": Spec}) == spec


# name, equation, sizes, what the message must say besides the equation
BAD = [
    ("no arrow", "i, i o", {"i": 3, "o": 4}, "x modes, core modes, ... -> y modes"),
    ("two arrows", "i -> o -> i", {"i": 3, "o": 4}, "x modes, core modes, ... -> y modes"),
    ("no core", "i -> i", {"i": 3}, "has no core"),
    ("empty core", "i, , i o -> o", {"i": 3, "o": 4}, "empty term"),
    ("empty input", ", i o -> i o", {"i": 3, "o": 4}, "empty term"),
    ("empty output", "i, i ->", {"i": 3}, "empty term"),
    ("bad name", "i, i o* -> o*", {"i": 3}, "'o*' in"),
    ("name begins with a digit", "1, 1 o -> o", {"o": 3}, "not a mode name"),
    ("the planner's batch axis", "*, * o -> o", {"*": 2, "o": 3}, "not a mode name"),
    ("ellipsis", "..., ... o -> o", {"o": 3}, "not a mode name"),
    ("no size", "i, i o -> o", {"i": 3}, "'o' has no size; give o=<size>"),
    ("unused size", "i, i o -> o", {"i": 3, "o": 4, "r": 5}, "does not use the size r=5"),
    ("input mode once", "i j, i o -> o", {"i": 3, "j": 2, "o": 4}, "'j' appears once only"),
    ("output mode once", "i, i o -> o p", {"i": 3, "o": 4, "p": 2}, "'p' appears once only"),
    ("bond once", "i, i r, i o -> o", {"i": 3, "o": 4, "r": 2}, "'r' appears once only"),
    ("repeated in a core", "i, i o o -> o", {"i": 3, "o": 4}, "repeats mode 'o' in the term 'i o o'"),
    ("repeated in the input", "i i, i o -> o", {"i": 3, "o": 4}, "repeats mode 'i' in the term 'i i'"),
    ("repeated in the output", "i, i o -> o o", {"i": 3, "o": 4}, "repeats mode 'o' in the term 'o o'"),
    ("size zero", "i, i o -> o", {"i": 0, "o": 4}, "size of 'i' must be a positive int, got 0"),
    ("negative size", "i, i o -> o", {"i": 3, "o": -4}, "got -4"),
    ("fraction", "i, i o -> o", {"i": 3.0, "o": 4}, "got 3.0"),
    ("bool", "i, i o -> o", {"i": True, "o": 4}, "got True"),
    ("text", "i, i o -> o", {"i": "3", "o": 4}, "got '3'"),
]


@pytest.mark.parametrize(("equation", "sizes", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_equations_say_what_is_wrong(equation, sizes, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        Spec.parse(equation, sizes)
    assert message in str(caught.value)
    assert "'" in str(caught.value)  # the user's own pattern is shown


def test_sizes_given_twice():
    with pytest.raises(ValueError, match="two sizes"):
        Spec(("i",), (("i", "o"),), ("o",), (("i", 3), ("o", 4), ("i", 5)))


@pytest.mark.parametrize(
    "config", [None, "i, i o -> o", {}, {"equation": "i, i o -> o"}, {"equation": "", "sizes": {}, "x": 1}]
)
def test_bad_configs(config):
    with pytest.raises(ValueError, match="'equation' and 'sizes'"):
        Spec.from_config(config)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(specs())
def test_round_trips(spec):
    assert Spec.parse(spec.equation, spec.size) == spec
    assert Spec.parse(spec.equation, spec.size).equation == spec.equation
    assert eval(repr(spec), {"Spec": Spec}) == spec
    assert Spec.from_config(json.loads(json.dumps(spec.to_config()))) == spec
    assert hash(Spec.from_config(spec.to_config())) == hash(spec)
    assert spec.equation in str(spec)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(specs())
def test_transposing_twice_is_the_same_map(spec):
    assert spec == spec.T.T
    assert (spec.T.in_dim, spec.T.out_dim, spec.T.cores) == (spec.out_dim, spec.in_dim, spec.cores)
    assert set(spec.T.block_modes) == set(spec.block_modes)
    assert spec.T.bonds == spec.bonds


@settings(max_examples=100, deadline=None, derandomize=True)
@given(specs())
def test_every_mode_has_one_role(spec):
    ends = [m for m in spec.inputs if m not in spec.block_modes], [m for m in spec.outputs if m not in spec.block_modes]
    assert sorted([*ends[0], *ends[1], *spec.block_modes, *spec.bonds]) == [m for m, _ in spec.sizes]


def test_equal_maps_are_equal_values_whatever_the_order_of_the_sizes():
    one, other = Spec.parse("i, i o -> o", i=3, o=4), Spec.parse("i, i o -> o", o=4, i=3)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Spec.parse("i, i o -> o", i=3, o=5)


def test_a_spec_is_a_constant():
    with pytest.raises(AttributeError):
        Spec.parse("i, i o -> o", i=3, o=4).inputs = ("o",)
