"""Options from a file: TOML or JSON, with the names of the options, checked against the command."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tncompress.limits import parsed_json, shown, shown_error
from tncompress.naming import nearest

MOST_BYTES = 1_000_000
MOST_DEPTH = 20  # of tables and lists in each other
MOST_LETTERS = 10_000  # of a name or a value
# Python's parser takes minutes for a name of thousands of parts.
_LONG_NAME = re.compile(rf"""(?:\.[ \t]*(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[\w-]+)[ \t]*){{{MOST_DEPTH}}}""", re.ASCII)


def read(file: str | Path) -> dict[str, Any]:
    """The values of a `.toml` or `.json` file.

    Raises:
        click.UsageError: it is not there, of another kind, too large, not UTF-8, not what its name says, or nested too
            deeply.
    """
    path = Path(file)
    parse = {".toml": _toml, ".json": json.loads}.get(path.suffix)
    if parse is None:
        raise click.UsageError(f"the configuration {str(file)!r} must be a .toml or a .json file.")
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise click.UsageError(f"the configuration {file} has more than {MOST_BYTES:,} bytes; is it another file?")
        values = parse(content.decode("utf-8"))
    except OSError as error:
        raise click.UsageError(f"the configuration {str(file)!r} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: byte {error.start} is not UTF-8; save it as such.") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file} is not {path.suffix[1:].upper()}: {shown_error(error)}.") from None
    if not isinstance(values, dict):
        raise click.UsageError(f"{file}: names and values were expected, got a {type(values).__name__}.")
    _check_depth(values, file)
    return values


def _toml(text: str) -> dict[str, Any]:
    if _LONG_NAME.search(text):
        raise ValueError(f"a name has more than {MOST_DEPTH} parts")
    return tomllib.loads(text)


def _check_depth(values: Any, file: str | Path) -> None:
    level = [values]
    for _ in range(MOST_DEPTH):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for one in inner for value in one]
    if level:
        raise click.UsageError(f"{file} is nested deeper than {MOST_DEPTH} tables or lists; is it another file?")


def options_of(values: Mapping[str, Any], command: click.Command, commands: Mapping[str, Any], file: str) -> dict:
    """Name of each parameter -> its value, as `click.Context.default_map` takes them.

    Args:
        values: what `read` gave. Tables with the names of other commands are passed over; that with the command's own
            name counts more than what stands outside of tables.
        command: whose options they are.
        commands: all there are, by name.
        file: for messages.

    Raises:
        click.UsageError: a name that is no option, with the nearest that are; a list where one value is wanted.
    """
    plain = {name: value for name, value in values.items() if name not in commands}
    own = values.get(command.name, {})
    if not isinstance(own, Mapping):
        raise click.UsageError(f"{file}: {command.name} must be a table of options, got {shown(own)}.")
    params = {_flag(param): param for param in command.params if param.name != "config"}
    found = {}
    for name, value in {**plain, **own}.items():
        param = params.get(name.replace("_", "-"))
        if param is None:
            raise click.UsageError(_unknown(name, command, list(params), file))
        if value is not None:
            found[param.name] = _typed(value, param, f"{file}: {name}")
    return found


def _flag(param: click.Parameter) -> str:
    """As it is typed, without the dashes."""
    return max(param.opts, key=len).removeprefix("--")


def _unknown(name: str, command: click.Command, known: Sequence[str], file: str) -> str:
    near = nearest(name.replace("_", "-"), known, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
    return f"{file}: {command.name} has no option {shown(name)}; {hint}"


def _typed(value: Any, param: click.Parameter, where: str) -> Any:
    """As it would be typed on the command line, so that the same checks and messages hold."""
    if isinstance(value, Mapping):
        if not isinstance(param.type, Setting):
            raise click.UsageError(f"{where} must be a value, got a table.")
        return list(value.items())
    if isinstance(value, list) and any(isinstance(one, list | Mapping) for one in value):
        raise click.UsageError(f"{where} must be a list of values, got {shown(value)}.")
    takes_several = getattr(param, "multiple", False) or param.nargs == -1
    if isinstance(value, list):
        if not takes_several:
            raise click.UsageError(f"{where} must be one value, got a list.")
        if not value:
            raise click.UsageError(f"{where} must be one value or more, got an empty list.")
        return [_word(one, where) for one in value]
    return [_word(value, where)] if takes_several else _word(value, where)


def _word(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    is_long = isinstance(value, int) and value.bit_length() > MOST_LETTERS  # Python refuses to write it down
    if is_long or len(word := str(value)) > MOST_LETTERS:
        raise click.UsageError(f"{where} must have at most {MOST_LETTERS:,} letters or digits, got {shown(value)}.")
    return word


class Setting(click.ParamType):
    """`name=value`; the value is JSON, or else text."""

    name = "name=value"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):  # of a table in a file
            return value
        name, equals, text = value.partition("=")
        if not (name and equals):
            self.fail(f"{value!r} should be name=value, such as num_layers=2", param, ctx)
        try:
            return name, parsed_json(text)
        except ValueError:
            return name, text
