"""`write_pretraining_data`: a corpus to shards with the processes of one machine."""

import multiprocessing
import os
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from bert_models.folders import new_folder
from bert_models.pretraining.blocks import Records, Task, blocks, groups_of_files, records, tasks
from bert_models.pretraining.info import INFO_NAME, check_corpus, make_info, to_text
from bert_models.pretraining.records import shard_name, write_records
from bert_models.pretraining.sentences import LAYOUTS, decoded, documents
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces

_ENTRY = struct.Struct("<16sI")  # place in the shard, length of the record


def write_pretraining_data(
    files: Sequence[str | Path],
    folder: str | Path,
    tokenizer,
    settings: DataSettings = DataSettings(),  # noqa: B008 - a frozen value
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Make the shards of a corpus. The records are the same for any number of workers, and as `beam` makes them.

    The folder appears when all is written. Meanwhile the disk needs room for the records twice.

    Args:
        files: UTF-8 text files. Their order counts, their names do not.
        folder: a new folder.
        tokenizer: what `bert_models.load_tokenizer` gives, or a `Vocabulary`.
        settings: what the examples are.
        workers: processes that work at the same time; with more than one, a script needs
            `if __name__ == "__main__":` around its call.
        progress: called with the bytes of text that are done and those that there are.

    Returns:
        The content of `pretraining_data.json`: settings, counts and shards.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError: a file does not exist, or the folder in which the new one should be.
        TypeError: the tokenizer is of another kind.
        ValueError: no files, no text in them, a file that is not UTF-8, or one document only where pairs are wanted.

    Example:
        tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
        write_pretraining_data(["corpus.txt"], "data", tokenizer, DataSettings(max_length=512), workers=4)
    """
    pieces, folder = WordPieces.of(tokenizer), Path(folder)
    sizes = _check(files, folder, workers)
    counts, shards = Counter(), []
    with new_folder(folder) as new:
        for made in _all_records(_tasks(files, sizes, settings), settings, pieces, workers):
            counts.update(made.counts)
            _spool(made, new)
            if progress:
                progress(min(counts["bytes"], sum(sizes)), sum(sizes))
        check_corpus(counts, settings)
        for number in range(settings.num_shards):
            shards.append(_sorted_shard(new, number, settings.num_shards))
        info = make_info(settings, pieces, counts, shards)
        (new / INFO_NAME).write_text(to_text(info), "utf-8")
    return info


def _check(files: Sequence[str | Path], folder: Path, workers: int) -> list[int]:
    """Sizes of the files in bytes, after a look at the arguments."""
    if isinstance(files, str | Path):
        raise TypeError(f"files must be a list of paths, got one {type(files).__name__}; write [{str(files)!r}].")
    if not files:
        raise ValueError("files must name one text file or more, got none.")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be an integer from 1, got {workers!r}.")
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"No file {str(file)!r}: give the paths of text files.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another name, or remove it first.")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"The folder {folder.parent} does not exist; make it first.")
    return [Path(file).stat().st_size for file in files]


def _tasks(files: Sequence[str | Path], sizes: Sequence[int], settings: DataSettings) -> Iterator[Task]:
    for number, group in enumerate(groups_of_files(sizes, settings.block_bytes)):
        found = chain.from_iterable(_documents(files[i], settings) for i in group)
        for block in blocks(found, number, settings.block_bytes):
            yield from tasks(block, settings)


def _documents(file: str | Path, settings: DataSettings) -> Iterator[list[str]]:
    with open(file, "rb") as lines:
        yield from documents(decoded(lines, str(file)), LAYOUTS[settings.layout])


def _all_records(work: Iterable[Task], settings: DataSettings, pieces: WordPieces, workers: int) -> Iterator[Records]:
    """The records of each task, in the order of the tasks."""
    if workers == 1:
        yield from (records(task, settings, pieces) for task in work)
        return
    # Not forked: the library of the tokenizer, and TensorFlow if it is loaded, have threads.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(settings, pieces.source)
    )
    waiting = deque()
    try:
        for task in work:
            waiting.append(pool.submit(_work, task))
            if len(waiting) > 2 * workers:  # so that never more than this is in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_in_worker: list[Any] = []  # settings and word pieces of this process


def _start(settings: DataSettings, source: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker, one core
    _in_worker[:] = settings, WordPieces(source)


def _work(task: Task) -> Records:
    return records(task, *_in_worker)


def _spool(made: Records, folder: Path) -> None:
    """Put records away, each with the others of its shard."""
    by_shard: dict[int, list[bytes]] = {}
    for shard, place, record in made.entries:
        by_shard.setdefault(shard, []).append(_ENTRY.pack(place, len(record)) + record)
    for shard, entries in by_shard.items():
        with open(_spool_file(folder, shard), "ab") as file:
            file.write(b"".join(entries))


def _spool_file(folder: Path, shard: int) -> Path:
    # In the folder that is removed when writing ends, see new_folder.
    return folder.parent / f"spool-{shard}"


def _sorted_shard(folder: Path, number: int, count: int) -> dict[str, Any]:
    """Write a shard, its records in the order of their places."""
    spool = _spool_file(folder, number)
    content = spool.read_bytes() if spool.exists() else b""
    spool.unlink(missing_ok=True)
    name = shard_name(number, count)
    with open(folder / name, "wb") as file:
        return write_shard(file, name, _entries(content))


def write_shard(file, name: str, entries: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Write records, given with their places, to a file; returns what `pretraining_data.json` says of it."""
    ordered = [record for _, record in sorted(entries)]
    return {"name": name, "records": len(ordered), "bytes": write_records(file, ordered)}


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        place, length = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size
        yield place, content[at : at + length]
        at += length
