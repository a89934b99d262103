"""Drawings of networks: everything of the spec is in them once, nothing covers anything else, and they are good XML."""

from itertools import combinations
from math import hypot
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from strategies import specs

from tncompress import FORMS, Spec, plan
from tncompress.reporting.drawing import MOST_DRAWN, svg
from tncompress.reporting.layout import RADIUS, layout

NAMESPACE = "{http://www.w3.org/2000/svg}"


def elements(text, kind, of_class=None):
    found = ElementTree.fromstring(text).iter(f"{NAMESPACE}{kind}")
    return [element for element in found if of_class is None or element.get("class") == of_class]


def ends(spec, mode):
    return (mode in spec.inputs) + sum(mode in core for core in spec.cores) + (mode in spec.outputs)


@given(specs())
def test_every_core_and_mode_is_drawn_once(spec):
    text = svg(spec, plan(spec))
    assert sorted(e.text for e in elements(text, "text", "name")) == [str(k + 1) for k in range(len(spec.cores))]
    shared = [mode for mode in spec.size if ends(spec, mode) > 2]
    assert len(elements(text, "circle", "dot")) == len(shared)
    assert len(elements(text, "path")) == sum(ends(spec, mode) if mode in shared else 1 for mode in spec.size)
    labels = [e.text.split(" ")[::2] for e in elements(text, "text") if e.get("class") is None]
    expected = [*spec.inputs, *spec.outputs, *spec.bonds]
    assert sorted((mode, int(size)) for mode, size, *_ in labels) == sorted((m, spec.size[m]) for m in expected)


@given(specs())
def test_tensors_keep_apart_and_legs_are_outside(spec):
    found = layout(spec)
    for (one, a), (other, b) in combinations(found.places.items(), 2):
        assert hypot(a[0] - b[0], a[1] - b[1]) > RADIUS[one[0]] + RADIUS[other[0]]
    left, top, right, bottom = found.box
    for (kind, _), (x, y) in found.places.items():
        assert left <= x <= right
        assert top <= y <= bottom
        assert (kind == "in") == (x == left)
        assert (kind == "out") == (x == right)
    for line in found.lines:
        assert [line.at(0.0), line.at(1.0)] == [found.places[end] for end in line.ends]


@given(specs())
def test_numbers_in_circles_are_the_steps_that_sum(spec):
    order = plan(spec)
    wanted = {mode: number for number, step in enumerate(order.steps, 1) for mode in step.summed}
    for label in (e.text for e in elements(svg(spec, order), "text") if e.get("class") is None):
        mode, _, _, *circled = label.split(" ")
        assert [ord(c) - 0x245F for c in circled] == ([wanted[mode]] if mode in wanted else [])


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_every_form_can_be_drawn(form):
    spec = next(iter(form.candidates(64, 64, 2048)))
    assert len(elements(svg(spec), "circle")) >= len(spec.cores)


def test_a_chain_stands_upright_with_its_legs_beside_it():
    equation = "i0 i1 i2, i0 o0 r1, r1 i1 o1 r2, r2 i2 o2 -> o0 o1 o2"
    places = layout(Spec.parse(equation, dict.fromkeys(["i0", "i1", "i2", "o0", "o1", "o2", "r1", "r2"], 4))).places
    cores = [places["core", str(k)] for k in range(3)]
    assert len({x for x, _ in cores}) == 1
    assert [places["in", f"i{k}"][1] for k in range(3)] == [y for _, y in cores] == sorted(y for _, y in cores)


def test_a_ring_closes_around_the_cores_between():
    equation = "a b c, z a d r, r b e s, s c f z -> d e f"
    found = layout(Spec.parse(equation, dict.fromkeys("abcdefrsz", 2)))
    (line,) = (line for line in found.lines if line.mode == "z")
    x, y = found.places["core", "1"]
    assert all(hypot(x - u, y - v) > RADIUS["core"] for u, v in (line.at(k / 20) for k in range(21)))


def test_larger_modes_are_thicker():
    widths = [float(e.get("stroke-width")) for e in elements(svg(Spec.parse("i, i o -> o", i=2, o=2048)), "path")]
    assert widths == sorted(widths)
    assert widths[0] < widths[1]


def test_the_picture_of_the_docs_is_what_the_code_draws():
    file = Path(__file__).parents[2] / "docs" / "tt_matrix.svg"
    equation = "i0 i1 i2, i0 o0 r1, r1 i1 o1 r2, r2 i2 o2 -> o0 o1 o2"
    spec = Spec.parse(equation, i0=8, i1=8, i2=12, o0=12, o1=16, o2=16, r1=40, r2=40)
    assert file.read_text(encoding="utf-8") == svg(spec, plan(spec))


def test_too_many_cores_are_refused():
    count = MOST_DRAWN + 1
    chain = [f"r{k} r{k + 1}" for k in range(count)]
    spec = Spec.parse(f"r0, {', '.join(chain)} -> r{count}", {f"r{k}": 2 for k in range(count + 1)})
    with pytest.raises(ValueError, match=f"at most 40 cores, got {count}; print the spec instead"):
        svg(spec)
