"""Targets: files with weights."""

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

from fuzz import mutators
from fuzz.target import FOLDER, Target, only_own_errors, written


def run_safetensors(data: bytes) -> None:
    """`model.safetensors`, header and values."""
    from bert_models.checkpoints import huggingface

    file = written("hf/model.safetensors", data)
    with only_own_errors():
        found = huggingface._header(file)
        readable = [t.label for t in found.values() if t.dtype in ("F32", "F16", "F64")]
        huggingface._read(file, readable)


def run_tensorflow(data: bytes) -> None:
    """The index of a TensorFlow checkpoint: two bytes of its length, the index, the data."""
    from bert_models.checkpoints.tf_checkpoint import TFCheckpoint

    length = int.from_bytes(data[:2], "little")
    prefix = written("tf/x.index", data[2 : 2 + length]).with_name("x")
    written("tf/x.data-00000-of-00001", data[2 + length :])
    with only_own_errors():
        checkpoint = TFCheckpoint(prefix)
        sizes = {name: tensor for name, tensor in checkpoint.tensors.items() if tensor.dtype in ("float32", "float16")}
        list(checkpoint.objects_with(["encoder/kernel"]))
        checkpoint.read(sizes)


def run_keras(data: bytes) -> None:
    """A `.keras` file, compressed and elastic."""
    from tncompress.conversion.saving import load

    file = written("x.keras", data)
    for keep in (None, 0.5):
        with only_own_errors():
            load(file, keep=keep)
    _forget_now_and_then()


def run_preset(data: bytes) -> None:
    """A folder as KerasHub's `save_to_preset` writes it, here as a zip."""
    from tncompress.conversion.saving import load

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in ("config.json", "model.weights.h5")}
    except Exception:  # it is only how both files are one input
        return
    for name, content in parts.items():
        written(f"preset/{name}", content)
    with only_own_errors():
        load(FOLDER / "preset")
    _forget_now_and_then()


def _forget_now_and_then() -> None:
    import keras

    STATE.runs += 1
    if STATE.runs % 100 == 0:
        keras.backend.clear_session()


STATE = SimpleNamespace(runs=0)


def safetensors_seeds() -> list[bytes]:
    import numpy as np
    from safetensors.numpy import save

    return [save({"bert.a.LayerNorm.gamma": np.ones(3, "float32"), "b": np.ones((2, 2), "float16")})]


def tensorflow_seeds() -> list[bytes]:
    import tensorflow as tf

    place = FOLDER / "seeds"
    place.mkdir(exist_ok=True)
    root = tf.train.Checkpoint(encoder=tf.train.Checkpoint(kernel=tf.Variable([1.0, 2.0])))
    made = [root.write(str(place / "objects"))]
    tensors = {"bert/a": tf.ones((2, 2)), "bert/b": tf.constant(["x"])}
    tf.raw_ops.SaveV2(
        prefix=str(place / "plain"),
        tensor_names=list(tensors),
        shape_and_slices=["", ""],
        tensors=list(tensors.values()),
    )
    found = []
    for prefix in (*made, str(place / "plain")):
        index, data = Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()
        found.append(len(index).to_bytes(2, "little") + index + data)
    return found


def keras_seeds() -> list[bytes]:
    import keras

    from tncompress.conversion.replace import replace_dense

    found = []
    for elastic in (False, True):
        entry = keras.Input((16,), name="entry")
        hidden = keras.layers.Dense(16, "relu", name="first")(entry)
        model = keras.Model(entry, keras.layers.Dense(16, name="second")(hidden), name="model")
        place = FOLDER / f"seed-{elastic}.keras"
        replace_dense(model, keep=0.75, elastic=elastic).save(place)
        found.append(place.read_bytes())
    return found


def preset_seeds() -> list[bytes]:
    import keras

    found = []
    for seed in keras_seeds()[:1]:
        model = keras.saving.load_model(written("seed.keras", seed))
        model.save_weights(FOLDER / "seed.weights.h5")
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("config.json", json.dumps(keras.saving.serialize_keras_object(model)))
            archive.write(FOLDER / "seed.weights.h5", "model.weights.h5")
        found.append(made.getvalue())
    return found


WEIGHTS = {
    "safetensors": Target(run_safetensors, safetensors_seeds, mutators.tensors),
    "tensorflow": Target(run_tensorflow, tensorflow_seeds),
    "keras": Target(run_keras, keras_seeds, mutators.archive),
    "preset": Target(run_preset, preset_seeds, mutators.archive),
}
