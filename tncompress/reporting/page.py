"""`page`: a report as one HTML file that needs nothing else: no network, no fonts, nothing to install.

It is a function of the report's JSON, which it also holds, in `<script type="application/json" id="report">`.
"""

import json
import os
from html import escape
from pathlib import Path

from tncompress.beside import beside
from tncompress.reporting.listings import layers, left_dense, networks, recipe
from tncompress.reporting.sections import cuts, errors, heading, parameters, trade
from tncompress.reporting.style import CSS, SCRIPT

SECTIONS = (parameters, errors, trade, cuts, networks, layers, left_dense, recipe)

# Nothing is fetched, nothing sent, whatever names a model has.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(report: str) -> str:
    """The page of a report's JSON.

    Args:
        report: as `Report.to_json` gives it.

    >>> from tncompress.reporting.report import Report
    >>> page(Report("tiny", (), 10, 10, {}).to_json()).startswith("<!doctype html>")
    True
    """
    data = json.loads(report)
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(data['model'])}: what became of it</title><style>{CSS}</style></head>\n<body>",
            heading(data),
            "<main>",
            *(make(data) for make in SECTIONS),
            "</main><footer>Made by tncompress. All numbers are in this file as JSON, rounded here.</footer>\n",
            # A "<" in a name would end the script; JSON has another way to write it.
            f'<script type="application/json" id="report">{report.replace("<", chr(92) + "u003c")}</script>\n',
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def write(path: str | os.PathLike, text: str) -> Path:
    """Write a file beside the old one, then put it in its place.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file, such as {path / 'report.html'}.")
    with beside(path) as place:
        place.write_text(text, encoding="utf-8")
    return path
