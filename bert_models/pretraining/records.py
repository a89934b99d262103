"""TFRecord files of `tf.train.Example`s, written without TensorFlow, so that workers need not load it.

Examples hold lists of integers and of floats only, under the names of TensorFlow Model Garden's pretraining data.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import BinaryIO

import numpy as np

# Length of each list in a record: tokens, predictions, or one.
INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
PREDICTIONS = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
LABELS = "next_sentence_labels"

_CHUNK = 1024  # records whose checksums are made together


def shard_name(number: int, count: int) -> str:
    """Name of a file.

    >>> shard_name(3, 16)
    'examples-00003-of-00016.tfrecord'
    """
    return f"examples-{number:05d}-of-{count:05d}.tfrecord"


def examples(features: Mapping[str, np.ndarray]) -> list[bytes]:
    """Serialised `tf.train.Example`s, always the same bytes for the same values.

    Args:
        features: name -> array [examples, values] of integers from 0, or of floats.

    Source: protocol buffers' wire format, and tensorflow/core/example/{example,feature}.proto.

    >>> examples({"a": np.array([[1, 300]])})[0].hex()
    '0a0e0a0c0a016112071a050a0301ac02'
    """
    columns = [_entries(name, values) for name, values in features.items()]
    return [_field(1, b"".join(entries)) for entries in zip(*columns, strict=True)]


def _entries(name: str, values: np.ndarray) -> Iterator[bytes]:
    """The entry of a feature's name in the map of each example."""
    is_float = values.dtype.kind == "f"
    key = _field(1, name.encode())
    for packed in map(np.ndarray.tobytes, values.astype("<f4")) if is_float else varints(values):
        # Feature: 2 float_list, 3 int64_list. All lists have their values, packed, in field 1.
        yield _field(1, key + _field(2, _field(2 if is_float else 3, _field(1, packed))))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


@cache  # lengths repeat
def _varint(value: int) -> bytes:
    return varints(np.array([[value]]))[0]


def varints(values: np.ndarray) -> list[bytes]:
    """Rows of integers from 0, each as groups of 7 bits, the lowest first, with the high bit set on all but the last.

    >>> [row.hex() for row in varints(np.array([[1, 300], [0, 127]]))]
    ['01ac02', '007f']
    """
    values = values.astype("int64")
    groups = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    shifted = values[..., None] >> (7 * np.arange(groups))  # [rows, values, groups]
    needed = shifted > 0
    needed[..., 0] = True
    more = np.zeros_like(needed)
    more[..., :-1] = needed[..., 1:]
    packed = ((shifted & 0x7F) | more << 7).astype("uint8")[needed].tobytes()
    ends = np.cumsum(needed.sum((1, 2))).tolist()
    return [packed[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def write_records(file: BinaryIO, records: Sequence[bytes]) -> int:
    """Append records in the TFRecord format; returns the number of bytes written.

    A record is its length in 8 bytes, their checksum, the content and its checksum.
    """
    written = 0
    for start in range(0, len(records), _CHUNK):
        chunk = records[start : start + _CHUNK]
        lengths = [struct.pack("<Q", len(record)) for record in chunk]
        checks = zip(_masked_crc32c(lengths), _masked_crc32c(chunk), strict=True)
        for record, length, (of_length, of_record) in zip(chunk, lengths, checks, strict=True):
            written += file.write(b"".join((length, of_length, record, of_record)))
    return written


def _masked_crc32c(texts: Sequence[bytes]) -> Iterator[bytes]:
    crc = crc32c(texts)
    # TFRecord's own turn of the checksum: rotated right by 15 bits, and a constant added.
    turned = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)
    return (value.tobytes() for value in turned.astype("<u4"))


def crc32c(texts: Sequence[bytes]) -> np.ndarray:
    """The CRC-32C (Castagnoli) of each text, uint32 [n], all at once.

    >>> hex(crc32c([b"123456789"])[0])  # the check value in RFC 3720's family of tables
    '0xe3069283'
    """
    lengths = np.array([len(text) for text in texts])
    # The CRC starts with all bits set, which is the same as to invert the first four bytes and start at 0; and from 0
    # on zero bytes change nothing. So texts of different lengths can be aligned at their ends, with zeros in front.
    padded = np.zeros((len(texts), int(max(lengths.max(initial=0), 4))), "uint8")
    for row, text in zip(padded, texts, strict=True):
        row[len(row) - len(text) :] = np.frombuffer(text, "uint8")
        row[len(row) - len(text) : len(row) - len(text) + 4] ^= 0xFF
    if (lengths < 4).any():
        raise ValueError("crc32c is for texts of 4 bytes or more.")
    crc = np.zeros(len(texts), "uint32")
    for column in np.ascontiguousarray(padded.T):
        crc = _TABLE[(crc ^ column) & np.uint32(0xFF)] ^ crc >> np.uint32(8)
    return ~crc


def _table() -> np.ndarray:
    crc = np.arange(256, dtype="uint32")
    for _ in range(8):
        crc = np.where(crc & np.uint32(1), crc >> np.uint32(1) ^ np.uint32(0x82F63B78), crc >> np.uint32(1))
    return crc.astype("uint32")


_TABLE = _table()
