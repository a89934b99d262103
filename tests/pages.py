"""README and docs as data: their blocks of code, by kind."""

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SHELL = ("make ", "pip ", "python ", "export ", "eval ", ".venv/")  # how indented commands begin


@dataclass(frozen=True)
class Block:
    """Lines of code in a page.

    Args:
        page: where it stands, from the root of the repository.
        line: number of its first line.
        kind: what stands after the backticks, or "indented".
        text: the lines.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README, CONTRIBUTING, and all of docs."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """All blocks of code of a page, in order."""
    name, found, kind, lines = str(page.relative_to(ROOT)), [], "", []
    for number, line in enumerate([*page.read_text("utf-8").splitlines(), ""], start=1):
        if line.startswith("```"):
            if kind:
                found.append(Block(name, number - len(lines), kind, "\n".join(lines)))
            kind, lines = ("" if kind else line[3:].strip() or "python"), []
        elif kind and kind != "indented":
            lines.append(line)
        elif line.startswith("    "):
            kind, lines = "indented", [*lines, line[4:]]
        elif kind:
            found.append(Block(name, number - len(lines), kind, "\n".join(lines)))
            kind, lines = "", []
    return found


def all_blocks() -> list[Block]:
    """Those of every page."""
    return [block for page in pages() for block in blocks(page)]


def is_shell(block: Block) -> bool:
    """Whether it is typed into a shell, or else is Python."""
    return block.kind == "indented" and block.text.startswith(SHELL)


def console_calls(page: Path) -> list[tuple[str, str]]:
    """Every `$ command` of a page's console blocks, with what it prints."""
    texts = [block.text + "\n" for block in blocks(page) if block.kind == "console"]
    return [tuple(call.split("\n", 1)) for text in texts for call in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]


def differs(wanted: str, found: str) -> bool:
    """Whether an output is not the one that a page shows, in which `...` is anything."""
    return not doctest.OutputChecker().check_output(wanted, found, FLAGS)


def words(line: str) -> list[str]:
    """A command without its comment, as words."""
    return shlex.split(line, comments=True)
