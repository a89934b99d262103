"""Inputs that fuzzing found, and what they did: each is run by the quick tests."""

import json
import struct
from typing import Any

_DTYPE = b'{"a":{"dtype":"F\\n2","shape":[1],"data_offsets":[0,4]}}'
_SHARD: dict[str, Any] = {"format": 1, "settings": {}, "shards": [{"name": "a\nb", "records": 1, "bytes": 5}]}
_LONG = json.dumps({**_SHARD, "shards": [{"name": "a" * 300, "records": 1, "bytes": 5}]}).encode()
# The footer of an index: places and lengths of two blocks, here of 2^62 bytes, and the mark of the format
_FOOTER = (b"\xff" * 8 + b"\x3f") * 4 + b"\0" * 4 + struct.pack("<Q", 0xDB4775248B80FB57)

FOUND: dict[str, list[bytes]] = {
    # OverflowError: infinity as a number of tokens
    "choice": [b'{"form": "bands", "bands": [[Infinity, 1]], "dim": 3}'],
    # An error of two lines: the name of a dtype, that of a shard; and a TypeError: one shard that is not in a list
    "safetensors": [struct.pack("<Q", len(_DTYPE)) + _DTYPE + b"1234"],
    # OSError: a name that is too long for a file
    "info": [json.dumps(_SHARD).encode(), json.dumps({**_SHARD, "shards": _SHARD["shards"][0]}).encode(), _LONG],
    # MemoryError: a block of an index that is longer than any memory
    "tensorflow": [len(_FOOTER).to_bytes(2, "little") + _FOOTER],
}
