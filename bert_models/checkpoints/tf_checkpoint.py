"""TensorFlow checkpoints: their tensors, and for TF2 the graph of objects that owns them. No model code runs."""

import glob
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_models.checkpoints.source import Tensor
from tncompress.limits import shown_error

INDEX_ENDING = ".index"
SMALLEST = 2  # bytes of a number, in the dtypes that are read
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True, slots=True)
class Node:
    """An object of a TF2 checkpoint: what it holds by name, and the tensor that it is, if it is a variable."""

    children: dict[str, int]
    label: str | None


class TFCheckpoint:
    """An opened checkpoint.

    Attributes:
        prefix: as given.
        tensors: by name, as in the file.
        nodes: the objects of a TF2 checkpoint, the root first; empty for TensorFlow 1.

    Raises:
        ValueError: the files are damaged.
    """

    def __init__(self, prefix: Path):
        import tensorflow as tf

        self.prefix = prefix
        with _readable(prefix):
            self._reader = tf.train.load_checkpoint(str(prefix))
            dtypes = self._reader.get_variable_to_dtype_map()
            self.tensors = {
                name: Tensor(name, tuple(shape), dtypes[name].name)
                for name, shape in self._reader.get_variable_to_shape_map().items()
            }
            self.nodes = self._nodes() if OBJECT_GRAPH in self.tensors else []

    @property
    def size(self) -> int:
        """Bytes of the files that hold the tensors."""
        return sum(file.stat().st_size for file in self.prefix.parent.glob(f"{glob.escape(self.prefix.name)}.data-*"))

    def read(self, labels: Iterable[str]) -> dict[str, np.ndarray]:
        """Values of the tensors with these names, which are no more than the files have room for."""
        labels = list(labels)
        total = sum(math.prod(self.tensors[label].shape) * SMALLEST for label in labels)
        with _readable(self.prefix):
            if 0 < self.size < total:  # TensorFlow itself says which file is not there
                raise ValueError(f"its tensors need at least {total:,} bytes, but its data files have {self.size:,}")
            return {label: self._reader.get_tensor(label) for label in labels}

    def _nodes(self) -> list[Node]:
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        graph = TrackableObjectGraph.FromString(self._reader.get_tensor(OBJECT_GRAPH))
        ids = {child.node_id for node in graph.nodes for child in node.children}
        if not all(0 <= number < len(graph.nodes) for number in ids):
            raise ValueError(f"its graph of {len(graph.nodes):,} objects names others")
        return [
            Node({child.local_name: child.node_id for child in node.children}, self._label(node.attributes))
            for node in graph.nodes
        ]

    def _label(self, attributes) -> str | None:
        keys = (item.checkpoint_key for item in attributes if item.name == "VARIABLE_VALUE")
        return next((key for key in keys if key in self.tensors), None)

    def follow(self, node: int, path: str) -> str | None:
        """Name of the tensor at the end of a path from an object, if it leads to one.

        A variable has one name in the file and may be reached in many ways.
        """
        for step in path.split("/"):
            if step not in self.nodes[node].children:
                return None
            node = self.nodes[node].children[step]
        return self.nodes[node].label

    def objects_with(self, paths: Iterable[str]) -> Iterator[int]:
        """The objects from which all these paths lead to tensors; those near the root first."""
        seen, waiting = {0}, deque([0] if self.nodes else [])
        while waiting:
            node = waiting.popleft()
            if all(self.follow(node, path) for path in paths):
                yield node
            following = [child for child in self.nodes[node].children.values() if child not in seen]
            seen.update(following)
            waiting.extend(following)


@contextmanager
def _readable(prefix: Path):
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        yield
    except (tf.errors.OpError, LookupError, MemoryError, RuntimeError, ValueError, DecodeError) as error:
        raise ValueError(
            f"{prefix} is a truncated or damaged checkpoint: {shown_error(error)}. Fetch it again."
        ) from None


def has_checkpoint(prefix: Path) -> bool:
    """Whether files of a checkpoint have this prefix."""
    return index_file(prefix).is_file()


def index_file(prefix: Path) -> Path:
    """The file of a checkpoint that lists its tensors."""
    return prefix.with_name(prefix.name + INDEX_ENDING)


def prefixes_in(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder."""
    return sorted(file.name.removesuffix(INDEX_ENDING) for file in folder.glob(f"*{INDEX_ENDING}"))


def only_prefix(folder: Path) -> Path:
    """The checkpoint in a folder that holds one.

    Raises:
        ValueError: there are several.
    """
    names = prefixes_in(folder)
    if len(names) > 1:
        raise ValueError(f"{str(folder)!r} holds several checkpoints: give the path of one of {', '.join(names)}.")
    return folder / names[0]


def prefix_of(file: Path) -> str | None:
    """The prefix, if the file is one of a checkpoint's.

    >>> prefix_of(Path("bert_model.ckpt.data-00000-of-00001")), prefix_of(Path("vocab.txt"))
    ('bert_model.ckpt', None)
    """
    match = re.fullmatch(r"(.+)\.(index|meta|data-\d+-of-\d+)", file.name)
    return match[1] if match else None
