"""Where the tensors of a network stand in a drawing: dangling legs left and right, cores in columns between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import hypot

from tncompress.network.spec import Spec

Key = tuple[str, str]  # kind and name: ("core", "0"), ("dot", mode), ("in", mode), ("out", mode)
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

COLUMN, LEG, ROW, LEG_ROW = 116.0, 78.0, 84.0, 36.0  # distances and the length of legs, pixels
RADIUS = {"core": 19.0, "dot": 4.0, "in": 0.0, "out": 0.0}
CLEARANCE = 9.0  # between a line and a tensor that it passes
BULGES = (0, 34, -34, 68, -68, 102, -102, 136, -136)  # how far a line bends out of the way, in the order tried
SWEEPS = 6  # of putting every tensor near those that it is joined to


@dataclass(frozen=True)
class Line:
    """A mode, or a part of it, between two tensors: a quadratic curve.

    Args:
        mode: whose.
        ends: what it joins.
        points: start, control point, end.
    """

    mode: str
    ends: tuple[Key, Key]
    points: tuple[Point, Point, Point]

    def at(self, t: float) -> Point:
        """The point at t, 0 to 1."""
        return _on_curve(self.points, t)


@dataclass(frozen=True)
class Layout:
    """Places of tensors, and lines between them.

    Args:
        places: centres of cores, of dots (modes that three or more tensors share) and of the ends of legs.
        lines: a bond, a leg, or a part of a shared mode each.
        box: left, top, right and bottom of all places and lines.
    """

    places: Mapping[Key, Point]
    lines: tuple[Line, ...]
    box: Box


def layout(spec: Spec) -> Layout:
    """Places for all tensors of a network.

    A core's column says how far it is from x and from y, counted in bonds. Rows follow what is joined to it.

    >>> found = layout(Spec.parse("i, i r, r o -> o", i=8, r=2, o=8))
    >>> [key for key, (x, _) in sorted(found.places.items(), key=lambda item: item[1])]
    [('in', 'i'), ('core', '0'), ('core', '1'), ('out', 'o')]
    """
    joins = tuple(_joins(spec))
    near = _neighbours(joins, spec)
    columns = _in_rows(_columns(near), near)
    places = _placed(columns, near)
    lines = tuple(_lines(joins, places))
    heights = [y for _, y in places.values()] + [line.at(k / 8)[1] for line in lines for k in range(9)]
    return Layout(places, lines, (0.0, min(heights), max(x for x, _ in places.values()), max(heights)))


def _joins(spec: Spec) -> Iterator[tuple[str, Key, Key]]:
    """Pairs of tensors that a mode joins; through a dot where it joins more than two."""
    for mode in spec.size:
        members: list[Key] = [("in", mode)] if mode in spec.inputs else []
        members += [("core", str(k)) for k, core in enumerate(spec.cores) if mode in core]
        members += [("out", mode)] if mode in spec.outputs else []
        if len(members) == 2:
            yield mode, members[0], members[1]
        else:
            yield from ((mode, member, ("dot", mode)) for member in members)


def _neighbours(joins: Sequence[tuple[str, Key, Key]], spec: Spec) -> dict[Key, list[Key]]:
    found: dict[Key, list[Key]] = {("in", mode): [] for mode in spec.inputs}
    found |= {("core", str(k)): [] for k in range(len(spec.cores))} | {("out", mode): [] for mode in spec.outputs}
    for _, first, second in joins:
        found.setdefault(first, []).append(second)
        found.setdefault(second, []).append(first)
    return found


def _columns(near: Mapping[Key, Sequence[Key]]) -> list[list[Key]]:
    """Inputs, then cores and dots by how near they are to x and to y, then outputs."""
    from_x, from_y = (_distances(near, kind) for kind in ("in", "out"))
    place: dict[Key, Fraction] = {}
    for key in near:
        x, y = (found.get(key, len(near)) for found in (from_x, from_y))
        place[key] = {"in": Fraction(-1), "out": Fraction(2)}.get(key[0], Fraction(x, x + y))
    return [[key for key in near if place[key] == value] for value in sorted(set(place.values()))]


def _distances(near: Mapping[Key, Sequence[Key]], kind: str) -> dict[Key, int]:
    """Bonds from every tensor to the nearest one of a kind; those that none leads to are left out."""
    found = dict.fromkeys((key for key in near if key[0] == kind), 0)
    queue = list(found)
    for key in queue:
        for other in near[key]:
            if other not in found:
                found[other] = found[key] + 1
                queue.append(other)
    return found


def _in_rows(columns: list[list[Key]], near: Mapping[Key, Sequence[Key]]) -> list[list[Key]]:
    """Every column in an order that brings tensors near those that they are joined to."""
    for _ in range(SWEEPS):
        height = {key: (row + 0.5) / len(column) for column in columns for row, key in enumerate(column)}
        for column in columns:
            mean = {k: sum(height[o] for o in near[k]) / len(near[k]) if near[k] else height[k] for k in column}
            column.sort(key=lambda key: round(mean[key] + 0.25 * height[key], 6))
    return columns


def _placed(columns: Sequence[Sequence[Key]], near: Mapping[Key, Sequence[Key]]) -> dict[Key, Point]:
    places: dict[Key, Point] = {}
    for number, column in enumerate(columns[1:-1], start=1):
        top = -ROW * (len(column) - 1) / 2
        x = LEG + COLUMN * (number - 1)
        places |= {key: (x, top + ROW * row) for row, key in enumerate(column)}
    right = 2 * LEG + COLUMN * (len(columns) - 3)
    for number in (0, len(columns) - 1):
        wish = {}
        for row, key in enumerate(columns[number]):
            heights = [places[other][1] for other in near[key] if other in places]
            wish[key] = sum(heights) / len(heights) if heights else LEG_ROW * row
        places |= {key: (right if number else 0.0, y) for key, y in _apart(wish).items()}
    return places


def _apart(wish: Mapping[Key, float]) -> dict[Key, float]:
    """Heights near those wished for, at least a leg's distance apart."""
    ordered = sorted(wish, key=lambda key: wish[key])
    groups: list[tuple[list[Key], float]] = []  # keys, and the height of the middle
    for key in ordered:
        groups.append(([key], wish[key]))
        while len(groups) > 1 and _bottom(groups[-2]) + LEG_ROW > _top(groups[-1]):
            keys, other = groups[-2][0] + groups[-1][0], groups.pop()
            middle = (len(groups[-1][0]) * groups[-1][1] + len(other[0]) * other[1]) / len(keys)
            groups[-1] = (keys, middle)
    return {key: _top(group) + LEG_ROW * row for group in groups for row, key in enumerate(group[0])}


def _top(group: tuple[list[Key], float]) -> float:
    return group[1] - LEG_ROW * (len(group[0]) - 1) / 2


def _bottom(group: tuple[list[Key], float]) -> float:
    return group[1] + LEG_ROW * (len(group[0]) - 1) / 2


def _lines(joins: Sequence[tuple[str, Key, Key]], places: Mapping[Key, Point]) -> Iterator[Line]:
    """Straight lines where nothing stands in the way and no other line is, else curves."""
    taken: dict[frozenset, set[int]] = {}
    for mode, first, second in joins:
        used = taken.setdefault(frozenset((first, second)), set())
        others = {key: place for key, place in places.items() if key not in (first, second)}
        free = [bulge for bulge in BULGES if bulge not in used]
        curves = {bulge: _curve(places[first], places[second], bulge) for bulge in free or [0]}
        bulge = max(curves, key=lambda bulge: min(_clearance(curves[bulge], others), 0.0))
        used.add(bulge)
        yield Line(mode, (first, second), curves[bulge])


def _curve(start: Point, end: Point, bulge: float) -> tuple[Point, Point, Point]:
    """A curve whose middle is so far to the side of the straight line."""
    (x, y), (u, v) = start, end
    length = hypot(u - x, v - y) or 1.0
    return start, ((x + u) / 2 + 2 * bulge * (v - y) / length, (y + v) / 2 - 2 * bulge * (u - x) / length), end


def _on_curve(points: tuple[Point, Point, Point], t: float) -> Point:
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
    (x, y), (u, v), (p, q) = points
    return a * x + b * u + c * p, a * y + b * v + c * q


def _clearance(points: tuple[Point, Point, Point], others: Mapping[Key, Point]) -> float:
    """Room between a curve and the nearest tensor, less the room there should be."""
    along = [_on_curve(points, k / 16) for k in range(17)]
    rooms = [hypot(x - u, y - v) - RADIUS[key[0]] - CLEARANCE for key, (u, v) in others.items() for x, y in along]
    return min(rooms, default=0.0)


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share room.

    >>> overlap((0, 0, 2, 2), (1, 1, 3, 3)), overlap((0, 0, 2, 2), (2, 0, 3, 2))
    (True, False)
    """
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
