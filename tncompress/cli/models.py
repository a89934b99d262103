"""MODEL on the command line: a file, a folder, a checkpoint or a preset; found out, completed and opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tncompress.cli import bert

SUFFIX = ".keras"


@dataclass(frozen=True)
class Found:
    """What a MODEL is, before it is opened.

    Args:
        name: as it was given.
        kind: "keras", "preset", or "checkpoint" for folders and prefixes.
        path: where it is; None for a preset.
    """

    name: str
    kind: str
    path: Path | None

    @property
    def folder(self) -> Path | None:
        """Where its tokenizer may lie."""
        if self.path is None:
            return None
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def title(self) -> str:
        """A short name for titles and files."""
        return Path(self.name).stem if self.kind == "keras" else Path(self.name).name

    @property
    def file_bytes(self) -> int | None:
        """Bytes of the file, or of the files of a checkpoint's weights; None for a preset."""
        if self.path is None:
            return None
        files = [self.path] if self.path.is_file() else bert.weight_files(self.path)
        return sum(file.stat().st_size for file in files)

    def has(self, file: Path) -> bool:
        """Whether a file is the model, or one of those that it is read from."""
        if self.path is None or not file.is_file():
            return False
        own = [self.path] if self.path.is_file() else bert.files_of(self.path)
        return any(file.samefile(one) for one in own)


class ModelType(click.ParamType):
    """A MODEL; presets and files are completed."""

    name = "model"

    def convert(self, value: Any, param: Any, ctx: Any) -> Found:
        try:
            return find(value) if isinstance(value, str) else value
        except (ValueError, OSError) as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in bert.presets() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


def find(name: str) -> Found:
    """What a MODEL is; what is there on disk comes before a preset of that name.

    Raises:
        FileNotFoundError: there is no such thing; near names of presets are given.
        ValueError: it is a file of another kind.

    >>> find("google/tn_bert/1")
    Found(name='tn_bert', kind='preset', path=None)
    """
    path = Path(name)
    if path.is_dir() or bert.is_checkpoint(path):
        return Found(name, "checkpoint", path)
    if path.is_file():
        if path.suffix != SUFFIX:
            raise ValueError(
                f"{name} is a file, but no {SUFFIX} one: give a {SUFFIX} file, a folder, the prefix of a TensorFlow "
                "checkpoint, or a preset."
            )
        return Found(name, "keras", path)
    try:
        return Found(bert.preset_name(name), "preset", None)
    except ValueError as error:
        near = str(error).partition("; ")[2].partition(".")[0]
        raise FileNotFoundError(
            f"There is no file, folder or checkpoint {name!r}, and no preset of that name ({near})."
        ) from None


def check_config(config: str | None, *models: Found) -> None:
    """Refuse `--config` where no model is a checkpoint, which alone it is for.

    Raises:
        ValueError: there is none.
    """
    if config is not None and all(found.kind != "checkpoint" for found in models):
        names = " and ".join(f"{found.name} ({found.kind})" for found in models)
        raise ValueError(
            f"--config describes a checkpoint, which {names} {'are' if models[1:] else 'is'} not; leave it away."
        )


def open_model(found: Found, *, config: str | None = None, seed: int = 0) -> Any:
    """The Keras model.

    Args:
        found: what it is.
        config: the preset that describes a checkpoint which does not say so itself.
        seed: of a preset's random weights.

    Raises:
        FileNotFoundError, ValueError: as `tncompress.load` and `bert_models.load`.
    """
    check_config(config, found)
    if found.kind == "preset":
        return bert.built(found.name, seed)
    if found.kind == "keras":
        from tncompress.conversion.saving import load

        return load(found.path)  # type: ignore[arg-type]
    return bert.loaded(found.path, config)  # type: ignore[arg-type]


MODEL = ModelType()
CONFIG = click.option("--config", metavar="PRESET", help="Of a checkpoint that does not say its architecture.")


def model_argument(name: str = "model") -> Any:
    """The argument MODEL."""
    return click.argument(name, type=MODEL)
