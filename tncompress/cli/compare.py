"""`tncompress compare`: two models side by side, their outputs, parameters, bytes and time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

from tncompress.cli.app import LimitError, Output, byte_size, milliseconds, number, table, with_output
from tncompress.cli.data import Source, batches_for
from tncompress.cli.models import CONFIG, Found, check_config, model_argument, open_model
from tncompress.cli.random_input import check_length, random_inputs
from tncompress.cli.wanted import FILE, text_options


@dataclass(frozen=True)
class Difference:
    """How far an output of B is from that of A, padding left out.

    Args:
        output: its name.
        largest: of all absolute differences.
        relative: ||a - b|| / ||a||.
        cosine: mean over vectors along the last axis; None where these are single numbers, of which it would tell
            signs alone.
    """

    output: str
    largest: float
    relative: float
    cosine: float | None


@click.command(short_help="Two models: outputs, parameters, bytes, time.")
@model_argument("a")
@model_argument("b")
@click.option(
    "--text", "--inputs", "files", type=FILE, multiple=True, metavar="FILE", help="Texts (.txt, .csv, .tsv) or arrays."
)
@text_options
@click.option("--batch", type=int, default=8, show_default=True, help="Rows of random input, without --text.")
@click.option("--length", type=int, default=64, show_default=True, help="Tokens of random input, without --text.")
@click.option("--max-difference", type=float, help="Exit with 1 if any output differs by more.")
@click.option("--min-cosine", type=float, help="Exit with 1 if the mean cosine of an output is below.")
@CONFIG
@with_output
def compare(
    a: Found,
    b: Found,
    batch: int,
    length: int,
    max_difference: float | None,
    min_cosine: float | None,
    config: str | None,
    output: Output,
    **texts: Any,
) -> None:
    """Compare the models A and B: outputs on texts or random input, parameters, bytes on disk, time.

    Example: tncompress compare my-bert small.keras --text sentences.txt
    """
    source = Source(**texts)
    if batch < 1:
        raise ValueError(f"--batch is at least 1, got {batch}.")
    check_config(config, a, b)
    models = [open_model(found, config=config if found.kind == "checkpoint" else None) for found in (a, b)]
    batches = _batches(models, (a, b), source, batch, length)
    rows = differences(models, batches)
    from tncompress.cli.timing import time_models

    times = time_models(dict(zip("ab", models, strict=True)), batches[len(batches) // 2])
    sides = {
        key: {
            "model": found.name,
            "params": model.count_params(),
            "file_bytes": found.file_bytes,
            "seconds": times[key],
        }
        for key, found, model in zip("ab", (a, b), models, strict=True)
    }
    value = {**sides, "input": "given" if source.files else "random", "outputs": [asdict(row) for row in rows]}
    output.show(value, _sizes(sides), _outputs(rows, source))
    _check(rows, max_difference, min_cosine)


def _batches(models: Sequence[Any], found: Sequence[Found], source: Source, rows: int, length: int) -> list[Any]:
    if source.files:
        return batches_for(models[0], found, source)
    if source.columns or source.tokenizer:
        raise ValueError("--column and --tokenizer are for texts: give these with --text.")
    check_length(models[0], length)
    return [random_inputs(models[0], rows, length)]


def differences(models: Sequence[Any], batches: Sequence[Any]) -> list[Difference]:
    """Of every output of two models over all batches.

    Raises:
        ValueError: the models do not take the same input, or have other outputs, or none to compare.
    """
    sums: dict[str, list[float]] = {}
    widths: dict[str, int] = {}
    for x in batches:
        first, second = (_outputs_of(model, x) for model in models)
        if {n: v.shape[1:] for n, v in first.items()} != {n: v.shape[1:] for n, v in second.items()}:
            raise ValueError(
                f"The models have different outputs, {_shapes(first)} and {_shapes(second)}: these cannot be compared."
            )
        if not first:
            raise ValueError("The models have no outputs of floating-point vectors, so there is nothing to compare.")
        for name, one in first.items():
            widths[name] = one.shape[-1]
            _add(sums.setdefault(name, [0.0] * 5), one, second[name])
    return [
        Difference(
            name,
            largest,
            (error / (energy or error)) ** 0.5 if error else 0.0,
            cosines / max(count, 1) if widths[name] > 1 else None,
        )
        for name, (largest, error, energy, cosines, count) in sums.items()
    ]


def _add(sums: list[float], one: np.ndarray, other: np.ndarray) -> None:
    one, other = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (one, other))
    gap, lengths = one - other, np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("ij,ij->i", one, other)
    sums[0] = float(np.maximum(sums[0], np.abs(gap).max(initial=0.0)))  # max() would lose NaN
    sums[1] += float(np.sum(gap**2))
    sums[2] += float(np.sum(one**2))
    # A vector of zeros points where the other does only if that is zero too.
    sums[3] += float(np.sum(np.where(lengths == 0, ~gap.any(axis=1), products / np.where(lengths == 0, 1, lengths))))
    sums[4] += len(one)


def _outputs_of(model: Any, x: Any) -> dict[str, np.ndarray]:
    """Floating-point outputs by name, only where there is no padding; sentence embeddings where the model has them."""
    import keras

    try:
        given = model.predict_on_batch(x)
    except Exception as error:  # whatever a model raises about its input
        from tncompress.conversion.surgery import first_line

        raise ValueError(f"The model {model.name} does not take this input ({first_line(error)}).") from None
    mask = (
        next((np.asarray(x[key]) for key in ("input_mask", "attention_mask", "padding_mask") if key in x), None)
        if (isinstance(x, Mapping))
        else None
    )
    named = given if isinstance(given, Mapping) else {"output": given}
    found: dict[str, np.ndarray] = {}
    for name, value in named.items():
        parts = [np.asarray(part) for part in keras.tree.flatten(value)]
        found |= {name if len(parts) == 1 else f"{name}_{k}": part for k, part in enumerate(parts)}
    found = {name: part for name, part in found.items() if part.dtype.kind == "f" and part.ndim > 1}
    if mask is not None and "sequence_output" in found:
        weights = mask[..., None].astype("float64")
        found["sentence_embedding"] = np.sum(found["sequence_output"] * weights, 1) / np.maximum(weights.sum(1), 1)
    is_token = {
        name: mask is not None and part.shape[:2] == mask.shape and part.ndim > 2 for name, part in found.items()
    }
    return {name: part[mask.astype(bool)] if is_token[name] else part for name, part in found.items()}


def _shapes(outputs: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {value.shape[1:]}" for name, value in outputs.items())


def _sizes(sides: Mapping[str, Mapping[str, Any]]) -> Any:
    one, other = sides["a"], sides["b"]
    shown = {"params": ("parameters", number), "file_bytes": ("on disk", byte_size), "seconds": ("ms", milliseconds)}
    rows = [
        (
            title,
            text(one[key]),
            text(other[key]),
            f"{other[key] / one[key]:.3f}" if one[key] and other[key] is not None else "",
        )
        for key, (title, text) in shown.items()
    ]
    return table(f"A: {one['model']}, B: {other['model']}", {"": False, "A": True, "B": True, "B / A": True}, rows)


def _outputs(rows: Sequence[Difference], source: Source) -> Any:
    what = ", ".join(file.name for file in source.files) or "random input"
    columns = {"output": False, "largest difference": True, "relative": True, "mean cosine": True}
    cells = (
        (row.output, f"{row.largest:.3g}", f"{row.relative:.3g}", "" if row.cosine is None else f"{row.cosine:.5f}")
        for row in rows
    )
    return table(f"Outputs on {what}", columns, cells)


def _check(rows: Sequence[Difference], most: float | None, least: float | None) -> None:
    if least is not None and all(row.cosine is None for row in rows):
        raise ValueError("--min-cosine is for outputs of two numbers and more; give --max-difference.")
    for row in rows:  # what is not a number meets no limit
        if most is not None and not row.largest <= most:
            raise LimitError(f"--max-difference {most:g} is not met: {row.output} differs by {row.largest:.3g}.")
        if least is not None and row.cosine is not None and not row.cosine >= least:
            raise LimitError(f"--min-cosine {least:g} is not met: that of {row.output} is {row.cosine:.5f}.")
