"""`pretraining_data.json`, written last beside the shards: what they were made with and how long each has to be."""

import hashlib
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
MOST = 1 << 31  # tokens in a row or a vocabulary; far more than there are, but numbers of JSON have no end
MOST_BYTES = 1 << 63  # of a file, and records in it
_KEYS = {"format", "settings", "vocabulary", "counts", "shards"}
_CHECKSUM = "sha256"  # of the rest; data of earlier versions has none


def _check(info: Mapping[str, Any]) -> None:
    """Refuse other keys and kinds of values than `make_info` gives, and what was changed since it was written."""
    if (keys := info.keys() - {_CHECKSUM}) != _KEYS:
        raise ValueError(f"its keys must be {', '.join(sorted(_KEYS))}, got {shown(sorted(keys))}")
    _check_settings(info["settings"])
    vocabulary = info["vocabulary"]
    kinds = list(map(type, map(vocabulary.get, ("size", "digest")))) if isinstance(vocabulary, dict) else []
    if kinds != [int, str] or not 0 < vocabulary["size"] < MOST:
        raise ValueError(f"vocabulary has a size and a digest, got {shown(vocabulary)}")
    if not isinstance(info["counts"], dict):
        raise ValueError(f"counts must be numbers by name, got {shown(info['counts'])}")
    _check_shards(info["shards"])
    if _CHECKSUM in info and info[_CHECKSUM] != _checksum(info):
        raise ValueError("its checksum is another one than when it was written")


def _checksum(info: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in info.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_settings(values: Any) -> None:
    if not isinstance(values, dict) or not values.keys() <= DataSettings.__dataclass_fields__.keys():
        raise ValueError(f"settings must be those of DataSettings, got {shown(values)}")
    made = DataSettings(**values)
    if type(made.whole_words) is not bool or type(made.fill_rows) is not bool:
        raise ValueError(f"whole_words and fill_rows must be true or false, got {shown(values)}")
    if max(made.max_length, made.max_predictions or 0) >= MOST:
        raise ValueError(f"max_length and max_predictions must be below {MOST:,}, got {shown(values)}")


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
        if not is_name or min(sizes := (shard["records"], shard["bytes"])) < 0 or max(sizes) >= MOST_BYTES:
            raise ValueError(f"a shard is a file in the folder, got {shown(shard)}")
    if len({shard["name"] for shard in shards}) < len(shards):
        raise ValueError("a shard is listed twice")


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
    info = {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "vocabulary": {"size": pieces.size, "digest": pieces.digest},
        "counts": {name: counts[name] for name in sorted(counts)},
        "shards": sorted(shards, key=lambda shard: shard["name"]),
    }
    return {**info, _CHECKSUM: _checksum(info)}


def to_text(info: Mapping[str, Any]) -> str:
    """As it is in the file."""
    return json.dumps(info, indent=1) + "\n"


def read_info(folder: str | Path) -> dict[str, Any]:
    """What is known of the shards in a folder, after a look at their lengths.

    Raises:
        FileNotFoundError: no such folder, or its writing did not come to an end, or a shard is missing.
        ValueError: the file is damaged, of a later version, or a shard is shorter or longer than it was written, or too
            short for rows as long as the settings say, which are given memory before they are read.
    """
    file = Path(folder) / INFO_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} is no finished pretraining data: it has no {INFO_NAME}, which is written last. Write it again."
        )
    try:
        info = json_object(file)
        version = info["format"]
        if version == FORMAT:
            _check(info)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file} is damaged ({shown_error(error)}); write the pretraining data again.") from None
    if version != FORMAT:
        raise ValueError(f"{file} has format {shown(version)}, but only {FORMAT} is known; update bert_models.")
    least = _least_bytes(DataSettings(**info["settings"]))
    for shard in info["shards"]:
        path = Path(folder) / shard["name"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {INFO_NAME} lists {len(info['shards'])} shards; copy it too.")
        if (found := path.stat().st_size) != shard["bytes"]:
            raise ValueError(
                f"{path} has {found:,} bytes, but {shard['bytes']:,} were written: it was cut or changed; copy it again"
            )
        if shard["records"] * least > found:
            raise ValueError(
                f"{path} has {found:,} bytes, too few for {shard['records']:,} records of at least {least:,}, as the "
                f"settings in {INFO_NAME} say: one of the files was changed; write the pretraining data again."
            )
    return info


def _least_bytes(settings: DataSettings) -> int:
    """Of a record: an integer takes a byte or more, a float four."""
    rows, predictions = 3 * settings.max_length, settings.predictions
    return rows + 6 * predictions if settings.masking == "static" else max(rows, predictions)
