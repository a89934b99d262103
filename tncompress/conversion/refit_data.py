"""What a refit goes over, checked before there is any work that a mistake in it would lose."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from tncompress.conversion.batch_checks import check_batches
from tncompress.conversion.batches import ROWS, batches_of, inputs_of, num_rows
from tncompress.conversion.gathered import are_moments

HELD_OUT = 0.1  # of the batches only judge


def refit_data(refit: Any, calibration: Any, elastic: bool) -> Any:
    """The batches to refit on, which can be gone over again and again; None for no refit.

    Args:
        refit, calibration, elastic: as of `replace_dense`.

    Raises:
        TypeError, ValueError: they are none, or too few; or something else that was asked for does not go with a refit.
    """
    if refit is False or refit is None:
        return None
    if elastic:
        raise ValueError("refit and elastic do not go together: what is refitted is so at one size.")
    if refit is True:
        if calibration is None or are_moments(calibration):
            raise ValueError(
                "refit=True goes over the calibration data, but calibration= gives "
                f"{'moments' if calibration is not None else 'none'}; give refit= batches of inputs."
            )
        return checked_data(
            calibration, HELD_OUT, "refit=True goes over the calibration data, which are", "calibration"
        )
    if isinstance(refit, (str, bytes)) or not isinstance(refit, Iterable):
        raise TypeError(
            "refit is True, to go over the calibration data, or batches of what the model takes as input, got "
            f"{refit!r}."
        )
    if are_moments(refit):
        raise ValueError("refit= gives moments, but a refit runs both models; give batches of inputs.")
    return checked_data(list(refit) if isinstance(refit, Iterator) else refit, HELD_OUT, "refit= gives")


def check_fits(model: keras.Model, data: Any) -> None:
    """Refuse batches that a model does not take: of a list any, of what has to be read first the first.

    Raises:
        ValueError: see `check_batches`.
    """
    batches = data if isinstance(data, (list, tuple)) else [next(batches_of(data, "refit")[0])]
    check_batches({"model": model}, [inputs_of(batch, model) for batch in batches], "refit")


def checked_data(
    data: Any, held_out: float, what: str = "The refit's data are", source: str = "refit", advice: str = ""
) -> Any:
    """The data, checked to be enough batches to hold some out. All inputs at once are cut into such batches.

    Args:
        data: see `tncompress.calibrate`; not an iterator.
        held_out: fraction of the batches, between 0 and 1.
        what: how a message about their number begins.
        source: what the data are for, for other messages.
        advice: how it ends.

    >>> [len(batch) for batch in checked_data(keras.ops.zeros((25, 3)), 0.1)]
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    """
    if isinstance(data, Mapping) or hasattr(data, "shape"):
        most = max(map(num_rows, data.values() if isinstance(data, Mapping) else [data]), default=0)
        rows = most // math.ceil(1 / min(held_out, 1 - held_out))
        data = list(batches_of(data, source, max(1, min(ROWS, rows)))[0])
    found: set[bool] = set()
    count = 0
    for count, _ in enumerate(batches_of(data, source)[0], start=1):
        found.add(judges(count - 1, held_out))
        if len(found) == 2:
            return data
    batches = "1 batch" if count == 1 else f"{count} batches"
    raise ValueError(f"{what} {batches}, too few to hold {held_out:.0%} out; give more and smaller ones{advice}.")


def judges(number: int, held_out: float) -> bool:
    """Whether the batch of this number is held out: they are evenly spread.

    >>> [number for number in range(30) if judges(number, 0.1)]
    [4, 14, 24]
    """
    return int((number + 1) * held_out + 0.5) > int(number * held_out + 0.5)
