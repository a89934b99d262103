"""New folders, written beside their place and then renamed: there is never half of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tncompress.beside import beside


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a place where a SavedModel cannot or shall not be written, before any work is done.

    Raises:
        FileExistsError: path exists, and overwrite is off or it is something else than a SavedModel.
        FileNotFoundError: the folder that it should be in does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    if path.exists() and not (path / "saved_model.pb").is_file():
        raise FileExistsError(f"{path} exists and is no SavedModel, so it is not overwritten; choose another name.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True.")


@contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder that is renamed to `path` when the block ends without an error.

    Args:
        path: where it will be.
        overwrite: a SavedModel that is there then goes away. Anything else stays, whatever appeared since the start.

    Raises:
        FileExistsError: when the block ends: there is something that shall stay.

    Its parent is a folder for what is needed while writing, and is removed; see `beside`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with new_folder(Path(place) / "made") as folder:
    ...         _ = (folder / "file").write_text("text")
    ...     sorted(str(file.relative_to(place)) for file in Path(place).rglob("*"))
    ['made', 'made/file']
    """
    with beside(path) as new:
        new.mkdir()
        yield new
        check_target(path, overwrite)
