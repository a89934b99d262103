"""A report as text: the table of networks, totals, warnings, and what stayed dense with its reasons."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tncompress.reporting.report import Report, Row

_ERRORS = "Errors are relative: 0 is exact, 1 is all lost."
_OBJECTIVE = "Of the objective it is the fraction of its variance that is predicted to change by each layer."


def text_of(report: "Report") -> str:
    """All of it as plain text, wide enough that no path is broken."""
    from rich.console import Console

    longest = max((len(row.layer) for row in report.rows), default=0)
    wide = 26 if any(row.seconds_before for row in report.rows) else 0
    console = Console(width=max(128, longest + 100) + wide, force_terminal=False, color_system=None, markup=False)
    with console.capture() as captured:
        for part in parts_of(report):
            console.print(part)
    return captured.get().rstrip()


def parts_of(report: "Report") -> Iterator[Any]:
    """What rich prints: the table of networks, if there is one; below it layers that stayed dense, by reasons."""
    if report.replaced:
        yield from _networks(report)
    else:
        yield f"{report.model}: not compressed, {len(report.rows)} layers, {report.params_after:,} parameters."
    yield from _left_dense(report)


def _networks(report: "Report") -> Iterator[Any]:
    """The table of networks, how to read it, totals, warnings."""
    from rich.table import Table

    table = Table(title=f"{report.model}: {len(report.replaced)} of {len(report.rows)} layers are networks")
    for title in ("layer", "form", "sizes"):
        table.add_column(title, overflow="fold")
    timed = any(row.seconds_before for row in report.replaced)
    for title in ("params", "FLOPs", *(["ms"] if timed else []), "error: weights", "outputs", "objective"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.replaced:
        table.add_row(
            row.layer,
            row.form,
            row.sizes,
            f"{row.params_before:,} -> {row.params_after:,}",
            f"{row.flops_before:,} -> {row.flops_after:,}",
            *([_milliseconds(row)] if timed else []),
            _number(row.weight_error),
            _number(row.output_error),
            _number(row.loss_error) if row.predicted_loss is None else percent(row.predicted_loss),
        )
    yield table
    of_objective = "" if report.predicted_loss is None else _OBJECTIVE
    yield " ".join(filter(None, (_ERRORS, of_objective, _advice(report))))
    if any(row.pivots for row in report.replaced):
        yield "Low rank with r x r numbers fewer than its equation says: it is stored without an identity block."
    yield from dict.fromkeys(f"{row.form}: {row.equation}" for row in report.replaced if row.equation)
    methods = Counter(row.method for row in report.replaced)
    yield from (f"Fitted by {method}: {count} layers." for method, count in methods.items())
    yield report.totals()
    yield from (f"Warning: {warning}" for warning in report.warnings)


def _advice(report: "Report") -> str:
    """What would lose less, where it was not given."""
    if report.predicted_loss is None and report.front is None and not report.is_blind:
        return 'Without an objective ("outputs" if nothing else matters) every layer shrinks alike, small ones too.'
    return ""


def _left_dense(report: "Report") -> Iterator[Any]:
    """A paragraph for every reason, with the layers that it holds for."""
    from rich.padding import Padding
    from rich.text import Text

    reasons: dict[str | None, list[Row]] = {}
    for row in report.rows:
        if not row.form:
            reasons.setdefault(row.reason, []).append(row)
    for reason, rows in reasons.items():
        params = sum(row.params_before for row in rows)
        yield Text(f"Left dense ({params:,} parameters), {reason}:")
        yield Padding(Text(", ".join(row.layer for row in rows)), (0, 0, 0, 2), expand=False)


def _milliseconds(row: "Row") -> str:
    if row.seconds_before is None or row.seconds_after is None:
        return ""
    return f"{1e3 * row.seconds_before:.3g} -> {1e3 * row.seconds_after:.3g}"


def percent(value: float) -> str:
    """A fraction with as many digits as tell it from nothing.

    >>> percent(0.0412), percent(2.81e-05), percent(0.0)
    ('4.12%', '0.0028%', '0%')
    """
    return f"{value:.2%}" if value >= 0.001 else f"{100 * value:.2g}%"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
