"""`svg`: a network drawn as the field draws tensor networks.

Round nodes are cores, lines are modes, thicker where they are larger. Legs that dangle on the left are of x, those on
the right of y. A mode that three or more tensors share meets in a dot (the tensor that is one where all its indices
agree).
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from math import log2

from tncompress.network.plan import Plan
from tncompress.network.spec import Spec
from tncompress.reporting.layout import RADIUS, Box, Key, Layout, Line, Point, layout, overlap

LETTER, HEIGHT = 7.6, 15.0  # width of a letter and height of a line of text, at most, pixels
GAP, BORDER = 7.0, 26.0  # between a leg and its label; around the network
SHRUNK = 0.72  # of its width that a drawing has at least; its text could not be read below
MOST_DRAWN = 40  # cores; more would be a thicket
WHERE = (0.5, 0.38, 0.62, 0.28, 0.72, 0.2, 0.8)  # along a line, where its label is tried
FAR = (1.0, 1.6, 2.2)  # times the least distance of a label from its line
ALONG = 16  # points of a line that labels keep off
CIRCLED = 0x2460  # the number one in a circle; there are twenty

STYLE = (
    ".tn{font:13px system-ui,sans-serif}.tn path{fill:none;stroke:#5b6b7b}.tn circle{fill:#0b62a8}"
    ".tn .dot{fill:#5b6b7b}.tn text{fill:#1b2733;stroke:#fff;stroke-width:4px;paint-order:stroke}"
    ".tn .name{fill:#fff;stroke:none;font-weight:600}"
    "@media(prefers-color-scheme:dark){.tn path{stroke:#93a4b5}.tn circle{fill:#2f81c9}.tn .dot{fill:#93a4b5}"
    ".tn text{fill:#e6edf3;stroke:#161b22}.tn .name{fill:#fff;stroke:none}}"
)


def svg(spec: Spec, plan: Plan | None = None) -> str:
    """A network as an SVG picture that needs nothing else, also inside a page; it has a light and a dark face.

    Args:
        spec: the network.
        plan: of it; modes that are summed then bear the number of the step that sums them.

    Raises:
        ValueError: if there are more cores than can be told apart in a drawing.

    >>> text = svg(Spec.parse("i, i r, r o -> o", i=768, r=64, o=3072))
    >>> text.startswith("<svg "), text.count("<circle"), "r = 64" in text
    (True, 2, True)
    """
    if len(spec.cores) > MOST_DRAWN:
        raise ValueError(f"A drawing shows at most {MOST_DRAWN} cores, got {len(spec.cores)}; print the spec instead.")
    found = layout(spec)
    labels = _labels(spec, plan)
    left, right = (max(len(labels[mode]) for mode in modes) * LETTER + 2 * GAP for modes in (spec.inputs, spec.outputs))
    top, width = found.box[1] - BORDER, found.box[2] + left + right
    height = found.box[3] + BORDER - top
    about = f"Tensor network {spec.equation} with {', '.join(f'{mode} = {size}' for mode, size in spec.sizes)}"
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tn" role="img" aria-label="{escape(about)}" ',
            f'width="{width:.0f}" height="{height:.0f}" ',
            f'style="max-width:100%;height:auto;min-width:{SHRUNK * width:.0f}px" ',
            f'viewBox="{-left:.0f} {top:.0f} {width:.0f} {height:.0f}">',
            f"<title>{escape(about)}</title><style>{STYLE}</style>",
            *(_path(line, spec) for line in found.lines),
            *_nodes(spec, found),
            *_texts(spec, found, labels),
            "</svg>",
        ]
    )


def _labels(spec: Spec, plan: Plan | None) -> dict[str, str]:
    """What stands at every mode."""
    steps = {mode: number for number, step in enumerate(plan.steps if plan else ()) for mode in step.summed}
    return {
        mode: f"{mode} = {size}" + (f" {chr(CIRCLED + steps[mode])}" if steps.get(mode, 20) < 20 else "")
        for mode, size in spec.sizes
    }


def _path(line: Line, spec: Spec) -> str:
    (x, y), (u, v), (p, q) = line.points
    width = 1.2 + 0.22 * log2(spec.size[line.mode])
    curve = f"M{x:.0f} {y:.0f}Q{u:.0f} {v:.0f} {p:.0f} {q:.0f}"
    return f'<path d="{curve}" stroke-width="{width:.1f}"/>'


def _nodes(spec: Spec, found: Layout) -> Iterator[str]:
    for (kind, name), (x, y) in found.places.items():
        at = f'cx="{x:.0f}" cy="{y:.0f}" r="{RADIUS[kind]:.0f}"'
        if kind == "dot":
            yield f'<circle class="dot" {at}/>'
        if kind == "core":
            number, modes = int(name) + 1, spec.cores[int(name)]
            about = f"core {number}: {' x '.join(f'{mode} = {spec.size[mode]}' for mode in modes)}"
            yield f"<g><title>{escape(about)}</title><circle {at}/>"
            yield f'<text class="name" x="{x:.0f}" y="{y + 4.5:.0f}" text-anchor="middle">{number}</text></g>'


def _texts(spec: Spec, found: Layout, labels: dict[str, str]) -> Iterator[str]:
    """Labels of legs at their ends; of bonds on their lines, of shared bonds at their dots, where there is room."""
    boxes = [_around(place, 2 * RADIUS[kind], 2 * RADIUS[kind]) for (kind, _), place in found.places.items()]
    boxes += [_around(line.at(k / ALONG), 3, 3) for line in found.lines for k in range(ALONG + 1)]
    for (kind, mode), (x, y) in found.places.items():
        if kind in ("in", "out"):
            side = -1 if kind == "in" else 1
            yield _text(x + side * GAP, y, labels[mode], "end" if kind == "in" else "start")
    for mode in spec.bonds:
        size = (len(labels[mode]) * LETTER, HEIGHT)
        x, y = _free(_tried(mode, size, found), size, boxes)
        boxes.append(_around((x, y), *size))
        yield _text(x, y, labels[mode], "middle")


def _tried(mode: str, size: tuple[float, float], found: Layout) -> Iterator[Point]:
    """Where the label of a bond may stand, best first: beside an upright line, above a flat one."""
    wide, high = size[0] / 2 + GAP, size[1] / 2 + GAP / 2
    dot: Key = ("dot", mode)
    if dot in found.places:
        x, y = found.places[dot]
        for far in FAR:
            yield from [(x, y + far * high), (x, y - far * high), (x + far * wide, y), (x - far * wide, y)]
        return
    line = next(line for line in found.lines if line.mode == mode)
    (x, y), _, (u, v) = line.points
    sides = [(0, -high), (0, high)] if abs(u - x) > abs(v - y) / 2 else [(wide, 0), (-wide, 0)]
    for far in FAR:
        for dx, dy in sides:
            yield from ((x + far * dx, y + far * dy) for x, y in map(line.at, WHERE))


def _free(tried: Iterable[Point], size: tuple[float, float], boxes: Sequence[Box]) -> Point:
    """The first place whose box is free, or the first of all."""
    places = list(tried)
    free = (place for place in places if not any(overlap(_around(place, *size), box) for box in boxes))
    return next(free, places[0])


def _around(place: Point, width: float, height: float) -> Box:
    x, y = place
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _text(x: float, y: float, label: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y + 4.5:.0f}" text-anchor="{anchor}">{escape(label)}</text>'
