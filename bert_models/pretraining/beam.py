"""`write_pretraining_data` as an Apache Beam pipeline: the same shards on any of Beam's runners.

Needs `pip install 'tncompress[beam]'`; workers of the pipeline need that too, but neither Keras nor TensorFlow.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

try:
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
except ImportError:  # said when it is needed, so that tools may look at this module without it
    beam = None

from bert_models.pretraining.blocks import Task, blocks, groups_of_files, records, tasks
from bert_models.pretraining.info import INFO_NAME, check_corpus, make_info, to_text
from bert_models.pretraining.pipeline import write_shard
from bert_models.pretraining.records import shard_name
from bert_models.pretraining.sentences import LAYOUTS, decoded, documents
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces


def write_pretraining_data(
    files: Sequence[str],
    folder: str,
    tokenizer,
    settings: DataSettings = DataSettings(),  # noqa: B008 - a frozen value
    *,
    options: Any = None,
) -> None:
    """Make the shards of a corpus; the records are those of `pipeline.write_pretraining_data`, bit for bit.

    Each shard has another name until it is whole, and `pretraining_data.json` is written last. Files are read by one
    worker each (several small ones by one worker), so cut a large corpus into some files per worker.

    Args:
        files: paths or patterns such as "gs://bucket/corpus/*.txt", on any file system that Beam knows. The files of a
            pattern are taken in the order of their names.
        folder: a new folder, which every worker can reach.
        tokenizer: what `bert_models.load_tokenizer` gives, or a `Vocabulary`.
        settings: what the examples are. A shard must fit in a worker's memory.
        options: `PipelineOptions` of Beam; None: its runner for one machine.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError: no file is found for a pattern.
        ImportError: Beam is not installed.
        TypeError, ValueError: as `pipeline.write_pretraining_data`; Beam may raise them as causes of its own errors.

    Example:
        options = PipelineOptions(["--runner=DataflowRunner", "--project=...", "--temp_location=gs://bucket/tmp"])
        write_pretraining_data(["gs://bucket/corpus/*.txt"], "gs://bucket/data", tokenizer, RECIPES["lambert"],
                               options=options)
    """
    if beam is None:
        raise ImportError("Apache Beam is not installed: pip install 'tncompress[beam]'.")
    source = WordPieces.of(tokenizer).source
    paths, sizes = _found(files)
    if FileSystems.exists(folder):
        raise FileExistsError(f"{folder} exists; choose another name, or remove it first.")
    groups = [
        (number, [paths[i] for i in group]) for number, group in enumerate(groups_of_files(sizes, settings.block_bytes))
    ]
    FileSystems.mkdirs(folder)
    with beam.Pipeline(options=options) as pipeline:
        work = (
            pipeline
            | "groups of files" >> beam.Create(groups, reshuffle=True)
            | "read" >> beam.FlatMap(_tasks, settings)
            | "share out" >> beam.Reshuffle()
        )
        made = work | "records" >> beam.FlatMap(_records, settings, source).with_outputs("counts", main="entries")
        counts = made.counts | "sum" >> beam.CombineGlobally(_sum)
        # Each shard has an entry without a record, so that those with no other are written too.
        every = pipeline | "every shard" >> beam.Create([(number, None) for number in range(settings.num_shards)])
        shards = (
            (made.entries, every)
            | "with every shard" >> beam.Flatten()
            | "by shard" >> beam.GroupByKey()
            # A look at the counts first: nothing is written for a corpus that is refused.
            | "write" >> beam.Map(_write_shard, folder, settings, beam.pvalue.AsSingleton(counts))
        )
        _ = (
            pipeline
            | "once" >> beam.Create([None])
            | "info"
            >> beam.Map(
                _write_info,
                folder,
                settings,
                source,
                beam.pvalue.AsSingleton(counts),
                beam.pvalue.AsList(shards),
            )
        )


def _found(files: Sequence[str]) -> tuple[list[str], list[int]]:
    """Paths and sizes of the files that the patterns stand for."""
    if isinstance(files, str):
        raise TypeError(f"files must be a list of paths, got one str; write [{files!r}].")
    if not files:
        raise ValueError("files must name one text file or more, got none.")
    paths, sizes = [], []
    for pattern, match in zip(files, FileSystems.match([str(file) for file in files]), strict=True):
        if not match.metadata_list:
            raise FileNotFoundError(f"No file {str(pattern)!r}: give the paths of text files.")
        for found in sorted(match.metadata_list, key=lambda found: found.path):
            paths.append(found.path)
            sizes.append(found.size_in_bytes)
    return paths, sizes


def _tasks(group: tuple[int, list[str]], settings: DataSettings) -> Iterator[Task]:
    number, paths = group
    found = chain.from_iterable(_documents(path, settings) for path in paths)
    for block in blocks(found, number, settings.block_bytes):
        yield from tasks(block, settings)


def _documents(path: str, settings: DataSettings) -> Iterator[list[str]]:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as lines:
        yield from documents(decoded(lines, path), LAYOUTS[settings.layout])


_pieces = cache(WordPieces)  # made once by each worker, since the tokenizer itself cannot be sent


def _records(task: Task, settings: DataSettings, source: str) -> Iterator[Any]:
    """(shard, (place, record)) of each example, and the counts aside."""
    made = records(task, settings, _pieces(source))
    yield beam.pvalue.TaggedOutput("counts", made.counts)
    for shard, place, record in made.entries:
        yield shard, (place, record)


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def _write_shard(entry, folder: str, settings: DataSettings, counts: dict[str, int]) -> dict[str, Any]:
    check_corpus(counts, settings)
    number, entries = entry
    name = shard_name(number, settings.num_shards)
    return _write(folder, name, lambda file: write_shard(file, name, (e for e in entries if e is not None)))


def _write_info(_, folder: str, settings: DataSettings, source: str, counts: dict[str, int], shards: list) -> None:
    text = to_text(make_info(settings, _pieces(source), counts, shards))
    _write(folder, INFO_NAME, lambda file: file.write(text.encode()))


def _write(folder: str, name: str, write) -> Any:
    """Write a file beside its place and rename it; two workers may be given the same one."""
    part = FileSystems.join(folder, f".{name}.{uuid.uuid4().hex}")
    place = FileSystems.join(folder, name)
    with FileSystems.create(part, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        result = write(file)
    FileSystems.rename([part], [place])
    return result
