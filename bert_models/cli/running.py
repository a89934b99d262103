"""How a command runs: its results on standard output, everything else on standard error, failures as one sentence."""

import contextlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from tncompress.commands import INTERRUPTED, exit_code, finite, plain, sentence

MOST_SAID = 3000  # characters of a sentence, which may quote what was given
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.2 and later


@dataclass(frozen=True)
class Result:
    """What a command gives.

    Args:
        values: all of it, as JSON can hold it.
        text: the same for people.
        code: exit code.
    """

    values: Mapping[str, Any]
    text: str
    code: int = 0


class Failure(click.ClickException):
    """An error as one sentence, with its exit code."""

    def __init__(self, error: Exception):
        super().__init__(sentence(error, "python -m bert_models --debug shows where"))
        self.exit_code = exit_code(error)


class Commands(click.Group):
    """A group whose `main` ends the process with an exit code and never with a traceback."""

    def main(self, args=None, prog_name=None, complete_var=None, standalone_mode=True, **extra):
        try:
            with _quiet_libraries():
                code = super().main(args, prog_name or "python -m bert_models", complete_var, False, **extra)
        except _HELP as error:
            click.echo(error.ctx.get_help())
            code = 0
        except click.ClickException as error:
            click.echo(f"Error: {_cut(plain(error.format_message()))}", err=True)
            code = error.exit_code
        except click.Abort:
            click.echo("Stopped.", err=True)
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx):
        return list(self.commands)  # in the order of use

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise Failure(error) from error


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}..."


class Command(click.Command):
    """A command whose function gives a `Result`, which is printed, or None."""

    def invoke(self, ctx):
        with contextlib.redirect_stdout(sys.stderr):
            result = super().invoke(ctx)
        if result is None:
            return 0
        click.echo(to_json(result.values) if ctx.meta.get(JSON) else result.text)
        return result.code


JSON = "bert_models.json"  # whether results are wanted as such


def to_json(values: Mapping[str, Any]) -> str:
    """Results as JSON, with null for floats that it does not have.

    >>> to_json({"losses": (1.5, float("nan"))}).split()
    ['{', '"losses":', '[', '1.5,', 'null', ']', '}']
    """
    return json.dumps(finite(values), indent=1, allow_nan=False)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Warnings in one line, and only errors of TensorFlow's."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    click.echo(f"Warning: {plain(message)}", err=True)
