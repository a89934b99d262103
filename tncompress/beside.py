"""Files and folders written beside their place and then renamed: there is never half of one, nor none for a moment."""

import ctypes
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = -100  # AT_FDCWD of Linux: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place where a file or a folder is made, which takes the place of `path` when the block ends without an error.

    Whoever is killed in between leaves what was there before, and a folder `.saving-...` that may be removed. The
    parent of the place is free for what is needed while writing, under any name but `new*`.

    >>> with tempfile.TemporaryDirectory() as home:
    ...     for text in ("old", "new"):
    ...         with beside(Path(home, "made")) as folder:
    ...             folder.mkdir()
    ...             _ = (folder / "file").write_text(text)
    ...     [(str(file.relative_to(home)), file.read_text()) for file in Path(home).rglob("*") if file.is_file()]
    [('made/file', 'new')]
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as scratch:
        new = Path(scratch, f"new{''.join(path.suffixes)}")  # not its own name, which other files may have
        yield new
        try:
            os.replace(new, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not path.is_symlink():
                raise
            _exchange(new, path)  # a folder cannot be renamed over a link, nor over one that holds something


def _exchange(new: Path, old: Path) -> None:
    """Let two paths change their names, at once where the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename and rename(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE) == 0:
        return
    aside = new.with_name(f"{new.name}.old")
    os.replace(old, aside)
    try:
        os.replace(new, old)
    except OSError:
        os.replace(aside, old)
        raise
