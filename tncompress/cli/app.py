"""What all commands share: one sentence for what is wrong, exit codes, tables or JSON."""

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from tncompress.cli.native_log import without_native_log
from tncompress.commands import FAILED, INTERRUPTED, WRONG, exit_code, finite, plain, sentence

PIPE_WIDTH = 160  # columns of tables that go to no terminal
TRACEBACK = "TNCOMPRESS_TRACEBACK"  # variable: show where an error comes from
# Arguments of the library that messages name, and that are options here.
ARGUMENTS = (
    *("keep", "params", "flops", "latency", "max_loss", "form", "include", "exclude", "embeddings", "calibration"),
    *("objective", "device", "tokens", "recipe", "allocation", "elastic", "refit", "config", "overwrite", "int8"),
)


class LimitError(Exception):
    """Something was asked for as a limit, and is not met."""


class Commands(click.Group):
    """A group whose commands never show a traceback for what the user can mend."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run a command; exits with one of the codes of `tncompress.commands`."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets everyone
        if os.environ.get(TRACEBACK):
            sys.exit(super().main(*args, standalone_mode=False, **kwargs))
        with without_native_log(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                found = super().main(*args, standalone_mode=False, **kwargs)
            except Exception as error:
                sys.exit(_told(error))
        sys.exit(found if isinstance(found, int) else 0)


def _told(error: Exception) -> int:
    """Tell it on standard error; the exit code."""
    if isinstance(error, click.Abort):
        click.echo("Interrupted; nothing was written.", err=True)
        return INTERRUPTED
    if type(error).__name__ == "NoArgsIsHelpError":  # not in older releases of click
        click.echo(error.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    from tncompress.fitting.budget import BudgetError

    if isinstance(error, LimitError | BudgetError):
        click.echo(one_line(error), err=True)
        return FAILED
    if isinstance(error, click.UsageError):
        of = f" {error.ctx.command_path.partition(' ')[2]}".rstrip() if error.ctx else ""
        click.echo(f"Error: {one_line(error.format_message())} See tncompress{of} --help.", err=True)
        return WRONG
    if isinstance(error, click.ClickException):
        click.echo(f"Error: {one_line(error.format_message())}", err=True)
        return WRONG
    click.echo(f"Error: {one_line(sentence(error, f'{TRACEBACK}=1 shows where'))}", err=True)
    return exit_code(error)


def one_line(error: Any) -> str:
    """A message on one line, with options as they are written here.

    >>> one_line(ValueError("Budget(max_loss=0.1) is low; give objective=,   leave refit=True away"))
    '--max-loss 0.1 is low; give --objective, leave --refit away'
    """
    text = re.sub(r"Budget\((\w+)=([^)]*)\)", r"\1=\2", plain(error))
    return re.sub(rf"\b({'|'.join(ARGUMENTS)})=(True\b)?(?=(\w|['\"])?)", _option, text)


def _option(found: re.Match) -> str:
    name = found[1].replace("_", "-")
    return f"--{name} " if found[3] and not found[2] else f"--{name}"


def _show_warning(message: Any, category: type[Warning], *_: Any) -> None:
    context = click.get_current_context(silent=True)
    quiet = context is not None and context.params.get("quiet")
    if issubclass(category, UserWarning) and not quiet:
        click.echo(f"Warning: {one_line(message)}", err=True)


@dataclass(frozen=True)
class Output:
    """Where results go.

    Args:
        json: one JSON object on standard output, and nothing else.
        quiet: nothing but JSON and errors.
    """

    json: bool
    quiet: bool

    @property
    def progress(self) -> bool | None:
        """For `progress_bar`: in a terminal, once it has run a while, unless it shall be quiet."""
        return False if self.quiet else None

    def show(self, value: Mapping[str, Any], *parts: Any) -> None:
        """The result: the value as JSON, or the parts (tables and text) to be read."""
        if self.json:
            click.echo(json.dumps(finite(value), indent=2, allow_nan=False))
        elif not self.quiet:
            console = _console()
            for part in parts:
                console.print(part)

    def hint(self, text: str) -> None:
        """A sentence beside the result."""
        if not self.quiet:
            click.echo(text, err=True)


def _console() -> Any:
    from rich.console import Console

    # Names of layers may hold brackets, which are no markup.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def table(title: str, columns: Mapping[str, bool], rows: Any) -> Any:
    """A table; columns by title, and whether they hold numbers."""
    from rich.table import Table

    found = Table(title=title, title_justify="left")
    for name, is_number in columns.items():
        found.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        found.add_row(*row)
    return found


def with_output(command: Callable) -> Callable:
    """Give a command `--json` and `--quiet`, and as its argument `output` what they make."""

    def run(*args: Any, json: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, output=Output(json, quiet), **kwargs)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    run = click.option("--quiet", is_flag=True, help="No tables, bars, warnings or hints: errors and JSON only.")(run)
    return click.option("--json", is_flag=True, help="The result as JSON, and nothing else on standard output.")(run)


def number(value: float | None, digits: int = 3) -> str:
    """A number to be read; nothing for None.

    >>> number(1234567), number(0.012345), number(None)
    ('1,234,567', '0.0123', '')
    """
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def byte_size(count: int | None) -> str:
    """Bytes in units to be read.

    >>> byte_size(437928960), byte_size(15700), byte_size(12), byte_size(None)
    ('437.9 MB', '15.7 kB', '12 B', '')
    """
    if count is None:
        return ""
    units = [(1e6, "MB"), (1e3, "kB")]
    return next((f"{count / unit:,.1f} {name}" for unit, name in units if count >= unit), f"{count} B")


def milliseconds(seconds: float | None) -> str:
    """Seconds in units of a thousandth.

    >>> milliseconds(0.0123)
    '12.3'
    """
    return "" if seconds is None else f"{1e3 * seconds:.3g}"
