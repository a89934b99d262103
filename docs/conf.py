"""The site: Sphinx reads docs/*.md (MyST) and the docstrings, without importing the packages. `make docs` builds it.

Sphinx, because it is maintained, checks every link between pages, and reads the docstrings as they are.
"""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([A-Z]+\.md)\)")  # a link to SECURITY.md, say

project = "tncompress"
author = "the tncompress authors"
copyright = "the tncompress authors, Apache-2.0"
extensions = ["myst_parser", "autoapi.extension", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tncompress and bert_models"
html_static_path: list[str] = []
html_show_sourcelink = False
exclude_patterns = ["_build"]
default_role = "code"  # single backticks in docstrings

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autoapi_dirs = [str(ROOT / "tncompress"), str(ROOT / "bert_models")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
autoapi_generate_api_docs = False  # docs/api.md says what is shown
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_python_class_content = "both"
# Constants that several names share are not resolved.
suppress_warnings = ["autoapi.python_import_resolution"]


def cells(script: str) -> str:
    """A notebook as a script, in jupytext's percent format, as a page: text as it is, code in fences.

    >>> print(cells("# %% [markdown]\\n# # A title\\n# Text.\\n\\n# %%\\nx = 1\\n").replace("`", "'"))
    # A title
    Text.
    <BLANKLINE>
    '''python
    x = 1
    '''
    """
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    found = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in kind:
            found.append(re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE))
        else:
            found.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(found)


def as_rst(docstring: list[str]) -> list[str]:
    """A docstring as Sphinx wants it, which differs from Markdown in tables, in single bars and in examples.

    >>> as_rst(["|x| of `a|b`", "Example:"])
    ['\\\\|x\\\\| of `a|b`', 'Example::', '']
    >>> as_rst(["| a | b |", "|---|---|", "| 1 | 2 |"])[1:]
    ['    :header-rows: 1', '', '    * - a', '      - b', '    * - 1', '      - 2', '']
    """
    found: list[str] = []
    for is_table, lines in groupby(docstring, lambda line: line.startswith(("| ", "|--"))):
        if is_table:
            rows = [line.strip("| ").split(" | ") for line in lines if not line.startswith("|--")]
            cells = (f"    {'  ' if k else '* '}- {cell.strip()}" for row in rows for k, cell in enumerate(row))
            found += [".. list-table::", "    :header-rows: 1", "", *cells, ""]
        else:
            found += [text for line in lines for text in _line(line)]
    return found


def _line(line: str) -> list[str]:
    if line.strip() == "Example:":
        return [f"{line}:", ""]
    if line.lstrip().startswith((">>>", "...")):
        return [line]
    return ["".join(part if part[:1] == "`" else part.replace("|", "\\|") for part in re.split("(`[^`]*`)", line))]


def put_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Called before Napoleon reads the sections."""
    lines[:] = as_rst(lines)


def put_script(app: Any, docname: str, source: list[str]) -> None:
    """A page `examples/NAME` is the script examples/NAME.py, followed by what the page's own file says.

    Links to files that are beside docs, and so not on the site, become their names.
    """
    source[0] = OUTSIDE.sub(r"`\1`", source[0])
    script = ROOT / f"{docname}.py"
    if docname.startswith("examples/") and script.exists():
        source[0] = f"{cells(script.read_text('utf-8'))}\n\n{source[0]}"


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", put_script)
    app.connect("autodoc-process-docstring", put_docstring, priority=100)
    return {"parallel_read_safe": True}
