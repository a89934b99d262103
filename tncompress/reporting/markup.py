"""Bits of HTML. Every number of the page is written by `shown`, which looks it up in the report's JSON by its pointer.

So no number can differ from the JSON but by rounding, and who reads the page can tell where each one comes from.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

UNKNOWN = "not known"

STYLES: Mapping[str, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "percent": lambda value: f"{value:.2%}",
    "times": lambda value: f"{value:.2f}",
    "short": lambda value: f"{value:.4g}",
    "ms": lambda value: f"{1e3 * value:.3g} ms",
    "text": str,
}


def at(data: Any, pointer: str) -> Any:
    """What a pointer such as `rows/0/layer` leads to.

    >>> at({"rows": [{"layer": "a"}]}, "rows/0/layer")
    'a'
    """
    for part in pointer.split("/"):
        data = data[int(part) if isinstance(data, list) else part]
    return data


def written(data: Any, pointer: str, style: str = "count") -> str:
    """The value as text, not escaped; what is None is not known."""
    value = at(data, pointer)
    return UNKNOWN if value is None else STYLES[style](value)


def shown(data: Any, pointer: str, style: str = "count", tag: str = "span", attributes: str = "") -> str:
    """The value in an element that tells where it is from.

    >>> shown({"params": 1234}, "params")
    '<span data-json="params">1,234</span>'
    """
    more = f" {attributes}" if attributes else ""
    return f'<{tag} data-json="{pointer}"{more}>{escape(written(data, pointer, style))}</{tag}>'


def known(data: Any, rows: Iterable[int], field: str) -> list[int]:
    """Those of the rows of which the field is known."""
    return [row for row in rows if data["rows"][row][field] is not None]


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        caption: what it is of.
        head: titles of the columns.
        rows: cells, HTML; the first of each is the row's title.
        numbers_from: columns from here on are numbers, set flush right.
    """

    def kind(column: int) -> str:
        return ' class="number"' if column >= numbers_from else ""

    titles = "".join(f'<th scope="col"{kind(k)}>{escape(title)}</th>' for k, title in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f"<td{kind(k)}>{c}</td>" for k, c in enumerate(rest, 1))
        + "</tr>\n"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "</section>\n"


def paragraph(*parts: str, kind: str = "") -> str:
    """HTML in a paragraph."""
    return f"<p{f' class={kind}' if kind else ''}>{' '.join(parts)}</p>"


def folded(summary: str, *parts: str) -> str:
    """HTML that a reader unfolds."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
