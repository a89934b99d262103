"""`pretraining_data.json`, written last beside the shards: what they were made with and how long each has to be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces
from tncompress.limits import json_object, shown, shown_error

INFO_NAME = "pretraining_data.json"
FORMAT = 1
MOST_NAME = 255  # bytes of a file's name


def _check_shards(shards: Any) -> None:
    """Refuse what is no list of files in the same folder with their numbers of records and bytes."""
    kinds = {"name": str, "records": int, "bytes": int}
    if not isinstance(shards, list):
        raise ValueError(f"shards must be a list, got {shown(shards)}")
    for shard in shards:
        if not isinstance(shard, dict) or not all(isinstance(shard.get(key), kind) for key, kind in kinds.items()):
            raise ValueError(f"a shard has name, records and bytes, got {shown(shard)}")
        name = shard["name"]
        is_name = Path(name).name == name and name.isprintable() and 0 < len(name.encode()) <= MOST_NAME
        if not is_name or min(shard["records"], shard["bytes"]) < 0:
            raise ValueError(f"a shard is a file in the folder, got {shown(shard)}")


def check_corpus(counts: Mapping[str, int], settings: DataSettings) -> None:
    """Refuse a corpus of which no examples can be made.

    Raises:
        ValueError: it has no text, or just one document where pairs are wanted.
    """
    if not counts.get("documents"):
        raise ValueError("the corpus is empty: none of the files has a line of text.")
    if settings.packing == "next_sentence" and counts["documents"] < 2:
        raise ValueError(
            "the corpus is a single document, but next-sentence pairs need parts of another one. With "
            f"layout={settings.layout!r}, is there what begins a document? Otherwise take packing='full_sentences'."
        )


def make_info(
    settings: DataSettings, pieces: WordPieces, counts: Mapping[str, int], shards: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of the file.

    Args:
        counts: sums over all tasks.
        shards: `name`, `records` and `bytes` of each file.
    """
    return {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "vocabulary": {"size": pieces.size, "digest": pieces.digest},
        "counts": {name: counts[name] for name in sorted(counts)},
        "shards": sorted(shards, key=lambda shard: shard["name"]),
    }


def to_text(info: Mapping[str, Any]) -> str:
    """As it is in the file."""
    return json.dumps(info, indent=1) + "\n"


def read_info(folder: str | Path) -> dict[str, Any]:
    """What is known of the shards in a folder, after a look at their lengths.

    Raises:
        FileNotFoundError: no such folder, or its writing did not come to an end, or a shard is missing.
        ValueError: the file is damaged, of a later version, or a shard is shorter or longer than it was written.
    """
    file = Path(folder) / INFO_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} is no finished pretraining data: it has no {INFO_NAME}, which is written last. Write it again."
        )
    try:
        info = json_object(file)
        version, shards = info["format"], info["shards"]
        if version == FORMAT:
            _check_shards(shards)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is damaged ({shown_error(error)}); write the pretraining data again.") from None
    if version != FORMAT:
        raise ValueError(f"{file} has format {shown(version)}, but only {FORMAT} is known; update bert_models.")
    for shard in shards:
        path = Path(folder) / shard["name"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {INFO_NAME} lists {len(shards)} shards; copy it too.")
        if (found := path.stat().st_size) != shard["bytes"]:
            raise ValueError(
                f"{path} has {found:,} bytes, but {shard['bytes']:,} were written: it was cut or changed; copy it again"
            )
    return info
