"""Which rows of calibration data are kept out of the moments, so that fits can be checked on them."""

from collections.abc import Iterator

EVERY = 100  # rows: so few that the moments hardly miss them
ENOUGH = 10  # rows, for which more than every hundredth is taken of small data
EVERY_OF_FEW = 10  # rows at most


def held_out(rows: range, total: int | None) -> Iterator[slice]:
    """Which rows of a batch are held out: one in a hundred, of fewer than a thousand rows about ten, at most a tenth.

    Of data whose number of rows is not known every tenth of the first hundred, and one in a hundred.

    Args:
        rows: by their numbers in all data; it does not matter how these are cut into batches.
        total: rows of all data; None: not known.

    >>> [[range(0, 20)[part] for part in held_out(range(0, 20), total)] for total in (20, 150, 1000, None)]
    [[range(9, 20, 10)], [range(14, 20, 15)], [], [range(9, 20, 10)]]
    """
    every = EVERY if total is None else min(EVERY, max(EVERY_OF_FEW, total // ENOUGH))
    pieces = [(rows.start, every)] if total is not None else [(0, EVERY_OF_FEW), (EVERY, EVERY)]
    stops = [start for start, _ in pieces[1:]] + [rows.stop]
    for (start, step), stop in zip(pieces, stops, strict=True):
        first = max(rows.start, start)
        first += (-1 - first) % step
        if first < (stop := min(rows.stop, stop)):
            yield slice(first - rows.start, stop - rows.start, step)
