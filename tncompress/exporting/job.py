"""What is exported: a model's call as a function of tensors by name, with what is known of their shapes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tncompress.conversion.structures import symbolic_inputs


@dataclass(frozen=True)
class Job:
    """A model and how it shall be written.

    Args:
        model: with its weights.
        signature: of its inputs, in their structure: a `tf.TensorSpec` each, with a name of its own.
        kept: names of the outputs to write; none: all.
        int8: weights as int8.
    """

    model: keras.Model
    signature: Any
    kept: tuple[str, ...] = ()
    int8: bool = False

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The specs by name."""
        return {spec.name: spec for spec in leaves(self.signature).values()}

    def call(self, inputs: Any) -> dict[str, Any]:
        """Outputs by name, of inputs in their structure. What exporters trace."""
        found = leaves(self.model(inputs, training=False), "output")
        if unknown := [name for name in self.kept if name not in found]:
            raise ValueError(f"The model has no output {unknown[0]!r}; its outputs are {', '.join(found)}.")
        return {name: found[name] for name in self.kept or found}

    def call_named(self, tensors_by_name: Mapping[str, Any]) -> dict[str, Any]:
        """The same, of inputs by name."""
        return self.call(mapped(lambda _, spec: tensors_by_name[spec.name], self.signature))

    def function(self) -> Callable:
        """`call_named` as a `tf.function` of one signature."""
        import tensorflow as tf

        return tf.function(self.call_named, input_signature=[self.inputs], autograph=False)

    def arrays(self, inputs: Any) -> Any:
        """Inputs in their structure as arrays of the dtypes of the signature.

        Raises:
            ValueError: there are others.
        """
        given = leaves(inputs)
        named = {_plain(name): value for name, value in given.items()}
        if named.keys() == self.inputs.keys():  # a dict by the names of inputs that are in a list, as Keras takes it
            given = {path: named[spec.name] for path, spec in leaves(self.signature).items()}
        if given.keys() != leaves(self.signature).keys():
            raise ValueError(
                f"The inputs to check the file on are {' and '.join(self.inputs)}; got {' and '.join(given)}."
            )
        return mapped(
            lambda path, spec: np.asarray(keras.ops.convert_to_numpy(given[path]), spec.dtype.as_numpy_dtype),
            self.signature,
        )

    def feed(self, arrays: Any) -> dict[str, np.ndarray]:
        """Arrays in their structure, by name."""
        given = leaves(arrays)
        return {spec.name: given[path] for path, spec in leaves(self.signature).items()}


def signature_of(model: keras.Model, check: Any = None) -> Any:
    """The inputs that a model takes, in their structure, each as a `tf.TensorSpec` with a name.

    Args:
        model: a functional or sequential one says itself what it takes.
        check: inputs of another model: the first axis may then have any length, the others have theirs.

    Raises:
        ValueError: the model does not say what it takes, and there is nothing to see it from.
    """
    import tensorflow as tf

    structure = symbolic_inputs(model)
    if structure is None and check is None:
        raise ValueError(
            f"The model {model.name!r} does not say what it takes; give a batch of its inputs as check=..., from which "
            "their shapes are read."
        )
    names: list[str] = []

    def spec(path: str, tensor: Any) -> tf.TensorSpec:
        if not isinstance(tensor, keras.KerasTensor):
            tensor = keras.ops.convert_to_tensor(tensor)
        name = _plain(tensor.name if isinstance(tensor, keras.KerasTensor) else path)
        names.append(f"{name}_{len(names)}" if name in names else name)
        return tf.TensorSpec((None, *tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype), names[-1])

    return mapped(spec, check if structure is None else structure)


def _plain(name: str) -> str:
    """A name that all formats take."""
    return re.sub(r"\W", "_", name)


def mapped(change: Callable[[str, Any], Any], structure: Any, path: str = "inputs") -> Any:
    """The same structure of dicts, lists and tuples with `change(path, leaf)` in the place of every leaf.

    >>> mapped(lambda path, leaf: f"{path}: {leaf}", {"a": [1, 2], "b": 3})
    {'a': ['a_0: 1', 'a_1: 2'], 'b': 'b: 3'}
    """
    if isinstance(structure, Mapping):
        return {key: mapped(change, value, _below(path, key)) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)([mapped(change, value, _below(path, k)) for k, value in enumerate(structure)])
    return change(path, structure)


def _below(path: str, key: Any) -> str:
    return f"{path}_{key}" if path not in ("inputs", "output") or isinstance(key, int) else str(key)


def leaves(structure: Any, path: str = "inputs") -> dict[str, Any]:
    """The leaves of a structure by path.

    >>> leaves({"pooled": 1, "states": [2, 3]}), leaves(4, "output"), leaves([5, 6], "output")
    ({'pooled': 1, 'states_0': 2, 'states_1': 3}, {'output': 4}, {'output_0': 5, 'output_1': 6})
    """
    found: dict[str, Any] = {}
    mapped(found.__setitem__, structure, path)
    return found
