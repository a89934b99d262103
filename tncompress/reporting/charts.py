"""The page's charts: SVG from the numbers of a report's JSON. Each has a title, and every mark one with its number."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from tncompress.reporting.grouping import kind_of
from tncompress.reporting.markup import at, written

WIDTH, HEIGHT = 420.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 10.0, 12.0, 34.0  # around the plot, for the axes' numbers
DECADES = 4  # of a logarithmic axis, but for a mark that is smaller; what is smaller still lies on the edge

Scale = Callable[[float], float]


def kind_number(data: Mapping, layer: str) -> int:
    """Which of the kinds of layers one is of."""
    names = [kind["kind"] for kind in data["kinds"]]
    kind = kind_of(layer)
    return names.index(kind) if kind in names else len(names) - 2


def bars(data: Mapping, title: str, field: str, style: str, rows: Sequence[int]) -> str:
    """One bar for every row of the report that has a number there, in the order of the model, coloured by kind."""
    values = [at(data, f"rows/{row}/{field}") or 0.0 for row in rows]
    top = max(values) or 1.0
    y = _linear((0.0, top), (HEIGHT - BOTTOM, TOP))
    step = (WIDTH - LEFT - RIGHT) / len(rows)
    parts = []
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        layer = data["rows"][row]["layer"]
        corner = f'x="{LEFT + step * number:.2f}" y="{y(value):.1f}"'
        size = f'width="{max(0.8 * step, 0.6):.2f}" height="{max(y(0.0) - y(value), 0.5):.1f}"'
        parts.append(
            f'<rect class="f{kind_number(data, layer)}" {corner} {size}>{_title(data, row, field, style)}</rect>'
        )
    ticks = [(tick, _tick(tick, style)) for tick in _round_numbers(top)]
    return _chart(title, [*_left_axis(ticks, y), *_under("layers, in the order of the model")], parts)


def front(data: Mapping, title: str, unit: str, style: str) -> str:
    """Loss against cost on a logarithmic axis, with the point that was chosen."""
    points = [*data["front"]["points"], data["front"]["chosen"]]
    costs, losses = zip(*points, strict=True)
    cost, loss = points.pop()
    floor = _floor(losses, mark=loss)
    y, ticks = _logarithmic(losses, style, floor)
    x = _linear((min(costs), max(costs)), (LEFT + 4, WIDTH - RIGHT - 12))
    points = _drawn(points, floor, cost)
    line = " ".join(f"{x(cost):.1f},{y(loss):.1f}" for cost, loss in points)
    about = f"chosen: {written(data, 'front/chosen/1', style)}"
    parts = [
        f'<polyline class="line" points="{line}"/>',
        *(f'<circle class="dot" cx="{x(c):.1f}" cy="{y(v):.1f}" r="2.2"/>' for c, v in points),
        f'<path class="guide" d="M{x(cost):.1f} {HEIGHT - BOTTOM:.1f}V{y(loss):.1f}H{LEFT:.1f}"/>',
        f'<circle class="chosen" cx="{x(cost):.1f}" cy="{y(loss):.1f}" r="6">'
        f'<title data-json="front/chosen/1">{escape(about)}</title></circle>',
        _chosen_label(x(cost), y(loss)),
    ]
    across = [(value, _large(value)) for value in _round_numbers(max(costs), min(costs))]
    return _chart(title, [*_left_axis(ticks, y), *_bottom_axis(across, x), *_under(unit)], parts)


def spectra(data: Mapping, title: str, rows: Sequence[int]) -> str:
    """Singular values of layers of one kind on a logarithmic axis, each line with a dot at its cut."""
    curves = [data["rows"][row]["spectrum"] for row in rows]
    values = [value for curve in curves for value in curve["values"]]
    floor = _floor(values)
    y, ticks = _logarithmic(values, "short", floor)
    last = max(curve["positions"][-1] for curve in curves)
    x = _linear((0, max(last, 1)), (LEFT, WIDTH - RIGHT))
    parts = []
    for row, curve in zip(rows, curves, strict=True):
        pairs = list(zip(curve["positions"], curve["values"], strict=True))
        rank = min(data["rows"][row]["rank"], pairs[-1][0])  # a full one is behind the last
        points = " ".join(f"{x(position):.1f},{y(value):.1f}" for position, value in _drawn(pairs, floor, rank))
        kind = kind_number(data, data["rows"][row]["layer"])
        parts.append(f'<polyline class="line s{kind}" points="{points}"/>')
        cut = f'cx="{x(rank):.1f}" cy="{_between([(position, y(value)) for position, value in pairs], rank):.1f}"'
        parts.append(f'<circle class="cut f{kind}" {cut} r="4">{_title(data, row, "rank", "count")}</circle>')
    across = [(value, _large(value)) for value in _round_numbers(last)]
    return _chart(
        title, [*_left_axis(ticks, y), *_bottom_axis(across, x), *_under("position of the singular value")], parts
    )


def shares(data: Mapping, when: str) -> str:
    """The parameters of the kinds of layers side by side, as wide as they are of the whole model as it was."""
    total = max(data["params_before"], data["params_after"], 1)
    parts = []
    for number, kind in enumerate(data["kinds"]):
        if kind[when] > 0:
            about = f"{escape(kind['kind'])}: {written(data, f'kinds/{number}/{when}')}"
            pointer = f'data-json-title="kinds/{number}/{when}"'
            share = f'style="width:{100 * kind[when] / total:.3f}%"'
            parts.append(f'<span class="b{number}" {share} {pointer} title="{about}"></span>')
    return f'<div class="bar" aria-hidden="true">{"".join(parts)}</div>'


def _title(data: Mapping, row: int, field: str, style: str) -> str:
    """What is told of a mark: its layer and its number."""
    pointer = f"rows/{row}/{field}"
    about = f"{data['rows'][row]['layer']}: {written(data, pointer, style)}"
    return f'<title data-json="{pointer}">{escape(about)}</title>'


def _chosen_label(x: float, y: float) -> str:
    left = x > WIDTH / 2
    anchor = "end" if left else "start"
    return f'<text x="{x - 10 if left else x + 10:.0f}" y="{y - 9:.0f}" text-anchor="{anchor}">chosen</text>'


def _between(pairs: Sequence[tuple[int, float]], position: int) -> float:
    """What is at a position, by those next to it."""
    for (start, high), (end, low) in pairwise(pairs):
        if start <= position <= end:
            return high + (low - high) * (position - start) / (end - start)
    return pairs[-1][1]


# -- axes ---------------------------------------------------------------------------------------------------


def _linear(values: tuple[float, float], pixels: tuple[float, float]) -> Scale:
    (low, high), (start, end) = values, pixels
    width = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / width


def _logarithmic(values: Sequence[float], style: str, floor: float) -> tuple[Scale, list[tuple[float, str]]]:
    """A scale down to the least value, or to the floor, and its ticks."""
    high, low = math.log10(max(values, default=1.0) or 1.0), math.log10(max(min(values, default=1.0), floor))
    low = min(low, high - 0.5) - 0.05
    within = _linear((low, high + 0.05), (HEIGHT - BOTTOM, TOP))
    powers = [10.0**k * factor for k in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 3)]
    inside = [power for power in powers if low <= math.log10(power) <= high + 0.05]
    if len(inside) > 5:
        inside = inside[:: math.ceil(len(inside) / 5)]
    return lambda value: within(math.log10(max(value, 10**low))), [(power, _tick(power, style)) for power in inside]


def _floor(values: Sequence[float], mark: float = 0.0) -> float:
    """What is smaller lies on the edge: some decades below the largest, but not above a mark."""
    floor = (max(values, default=1.0) or 1.0) * 10**-DECADES
    return min(floor, mark) if mark > 0 else floor


def _drawn(pairs: Sequence[Any], floor: float, mark: float) -> Sequence[Any]:
    """Of the points of a falling curve those down to the edge, and at least those up to a mark, which lies on it.

    >>> _drawn([(1, 0.5), (2, 0.1), (3, 0.0), (4, 0.0), (5, 0.0)], floor=0.2, mark=3)
    [(1, 0.5), (2, 0.1), (3, 0.0)]
    """
    return pairs[: max(sum(value >= floor for _, value in pairs), sum(place < mark for place, _ in pairs)) + 1]


def _round_numbers(high: float, low: float = 0.0) -> list[float]:
    """About four round numbers from low to high.

    >>> _round_numbers(10.0), _round_numbers(3e6, 1e6)
    ([0.0, 2.5, 5.0, 7.5, 10.0], [1000000.0, 1500000.0, 2000000.0, 2500000.0, 3000000.0])
    """
    width = (high - low) or 1.0
    unit = 10 ** math.floor(math.log10(width / 2))
    step = next(unit * factor for factor in (0.5, 1, 2, 2.5, 5, 10) if width / (unit * factor) <= 4.01)
    start = math.ceil(low / step - 1e-9)
    return [step * k for k in range(start, math.floor(high / step + 1e-9) + 1)]


def _tick(value: float, style: str) -> str:
    return f"{100 * value:.3g}%" if style == "percent" else f"{value:.3g}"


def _large(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {letter}"
    return f"{value:.3g}"


def _left_axis(ticks: Sequence[tuple[float, str]], y: Scale) -> Iterator[str]:
    for value, label in ticks:
        yield f'<path class="grid" d="M{LEFT:.0f} {y(value):.1f}H{WIDTH - RIGHT:.0f}"/>'
        yield f'<text class="tick" x="{LEFT - 6:.0f}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>'


def _bottom_axis(ticks: Sequence[tuple[float, str]], x: Scale) -> Iterator[str]:
    for value, label in ticks:
        yield f'<path class="grid" d="M{x(value):.1f} {HEIGHT - BOTTOM:.0f}v4"/>'
        at_tick = f'x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 15:.0f}"'
        yield f'<text class="tick" {at_tick} text-anchor="middle">{label}</text>'


def _under(text: str) -> Iterator[str]:
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4:.0f}" text-anchor="middle">{escape(text)}</text>'


def _chart(title: str, axes: Sequence[str], marks: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}"'
    about = f'role="img" aria-label="{escape(title)}"'
    inner = "".join([f"<title>{escape(title)}</title>", *axes, *marks])
    return f'<figure><figcaption>{escape(title)}</figcaption><svg class="chart" {about} {box}>{inner}</svg></figure>'
