"""What models are run on: texts or arrays from files."""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tncompress.cli import bert
from tncompress.cli.models import Found

BATCH = 64
FEWEST_BATCHES = 16  # some of which can be held out
MOST_CELL = 1 << 20  # characters of one cell of a table
ARRAYS = (".npy", ".npz")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
# What ids, mask and types are called: by bert_models, KerasHub, Hugging Face.
NAMES = (
    bert.INPUTS,
    ("token_ids", "padding_mask", "segment_ids"),
    ("token_ids", "padding_mask"),
    ("input_ids", "attention_mask", "token_type_ids"),
    ("input_ids", "attention_mask"),
)


@dataclass(frozen=True)
class Source:
    """Where inputs come from, as it was said on the command line.

    Args:
        files: of texts (one a line, or a column of a table), or of arrays.
        columns: names or numbers (from 1) of the columns with texts.
        tokenizer: folder, `vocab.txt` or `tokenizer.json`; None: the model's own.
        most: texts or rows that are taken, evenly spread over all.
    """

    files: tuple[Path, ...]
    columns: tuple[str, ...] = ()
    tokenizer: Path | None = None
    most: int = 3000

    def __post_init__(self):
        if self.most < 1:
            raise ValueError(f"--most is at least 1, got {self.most}.")
        kinds = {file.suffix.lower() in ARRAYS for file in self.files}
        if len(kinds) > 1:
            raise ValueError("Some files hold arrays and some texts; give files of one kind.")
        if self.has_arrays and len(self.files) > 1:
            raise ValueError(f"Give one file of arrays, got {len(self.files)}: put them together.")
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"There is no file {file}: give texts (.txt, .csv, .tsv) or arrays (.npy, .npz)."
                )

    @property
    def has_arrays(self) -> bool:
        """Whether the files hold arrays."""
        return any(file.suffix.lower() in ARRAYS for file in self.files)


def batches_for(model: Any, found: Sequence[Found], source: Source) -> list[Any]:
    """Batches of what the model takes as input.

    Args:
        model: opened.
        found: it, and others that it is compared with, whose tokenizers will do as well.
        source: of texts or arrays.

    Raises:
        FileNotFoundError, ValueError: a file is not there, damaged, or not for this model; the message says what to do.
    """
    if source.has_arrays:
        return _cut(_arrays(source.files[0]), source.most)
    names = _text_names(model)
    texts = spread(read_texts(source.files, source.columns), source.most)
    return bert.batches(_tokenizer(model, found, source), texts, batch_size(len(texts)), names)


def _text_names(model: Any) -> Sequence[str]:
    from tncompress.conversion.structures import symbolic_inputs

    struct = symbolic_inputs(model)
    found = sorted(struct) if isinstance(struct, Mapping) else []
    for names in NAMES:
        if sorted(names) == found:
            return names
    takes = ", ".join(found) or "no dict"
    raise ValueError(
        f"Texts are given to models with the inputs {', '.join(bert.INPUTS)}, or as KerasHub and Hugging Face call "
        f"them; this one takes {takes}: give it arrays, as .npy or .npz."
    )


def _tokenizer(model: Any, found: Sequence[Found], source: Source) -> Any:
    if source.tokenizer is not None:
        return bert.tokenizer(source.tokenizer, model)
    for one in found:
        if one.folder is not None and bert.has_tokenizer(one.folder):
            return bert.tokenizer(one.folder, model)
    names = " and ".join(one.name for one in found)
    raise ValueError(
        f"The texts in {source.files[0]} need the tokenizer of the model, and beside {names} there is none: give "
        "--tokenizer, the folder of the original model or its vocab.txt."
    )


# -- files -----------------------------------------------------------------------------------------


def read_texts(files: Sequence[Path], columns: Sequence[str]) -> list[str]:
    """All texts of some files that are not empty: lines, or cells of columns.

    Raises:
        ValueError: a file is not UTF-8, has no such column, or there is no text.
    """
    texts: list[str] = []
    for file in files:
        separator = SEPARATORS.get(file.suffix.lower())
        if separator is None and columns:
            raise ValueError(f"--column is for .csv and .tsv, but {file.name} has one text a line.")
        try:
            texts += _lines(file) if separator is None else _cells(file, separator, columns)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8 text (byte {error.start}); convert it.") from None
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"There is no text in {', '.join(map(str, files))}.")
    return texts


def _lines(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig") as lines:
        return list(lines)


def _cells(file: Path, separator: str, columns: Sequence[str]) -> list[str]:
    csv.field_size_limit(MOST_CELL)
    # In .tsv files of text quotes are marks like any other.
    quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, delimiter=separator, quoting=quoting)
        try:
            rows = [row for row in reader if row]
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.line_num}, is no table: {error}.") from None
    header = rows[0] if rows else []
    if not columns:
        raise ValueError(f"{file.name} has the columns {', '.join(header)}: say with --column which hold texts.")
    texts: list[str] = []
    for column in columns:
        if column in header:
            place, body = header.index(column), rows[1:]
        elif column.isdecimal() and 1 <= int(column) <= len(header):
            place, body = int(column) - 1, rows
        else:
            raise ValueError(f"{file.name} has no column {column!r}; it has {', '.join(header)}, or numbers from 1.")
        texts += [row[place] for row in body if place < len(row)]
    return texts


def _arrays(file: Path) -> Any:
    """An array, or a dict of arrays of equal length."""
    try:
        read = np.load(file, allow_pickle=False)
        found = read if isinstance(read, np.ndarray) else {name: read[name] for name in read.files}
    except (ValueError, EOFError, zipfile.BadZipFile, OSError, MemoryError) as error:
        raise ValueError(f"{file} holds no arrays that can be read ({error}); write it with numpy.save.") from None
    arrays = [found] if isinstance(found, np.ndarray) else list(found.values())
    if not arrays or any(array.ndim == 0 or array.dtype.kind not in "fiub" for array in arrays):
        raise ValueError(f"{file} holds no arrays of numbers, with a row for every input.")
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"{file} holds arrays of different lengths: {', '.join(str(len(a)) for a in arrays)}.")
    if not len(arrays[0]):
        raise ValueError(f"{file} holds arrays without rows; give one row for every input.")
    return found


def _cut(arrays: Any, most: int) -> list[Any]:
    count = len(next(iter(arrays.values())) if isinstance(arrays, dict) else arrays)
    rows = np.array(spread(range(count), most))
    size = batch_size(len(rows))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    if isinstance(arrays, dict):
        return [{name: array[part] for name, array in arrays.items()} for part in parts]
    return [arrays[part] for part in parts]


def batch_size(count: int) -> int:
    """Rows of a batch, of so many.

    >>> batch_size(3000), batch_size(100), batch_size(3)
    (64, 6, 1)
    """
    return max(1, min(BATCH, count // FEWEST_BATCHES))


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spread.

    >>> spread(range(10), 3)
    [0, 3, 6]
    """
    count = min(most, len(items))
    return [items[k * len(items) // count] for k in range(count)]
