"""A SavedModel folder: one that `bert_models.export` wrote, or one of TensorFlow Model Garden's on TF Hub."""

from pathlib import Path

import keras

import tncompress.conversion.saving  # noqa: F401 - registers the class of compressed encoders
from bert_models.checkpoints.model_garden import open_objects
from bert_models.checkpoints.names import TF1, Weight, weights
from bert_models.checkpoints.source import Source
from bert_models.checkpoints.tf_checkpoint import TFCheckpoint, has_checkpoint
from bert_models.config import BertConfig
from bert_models.encoder import build_encoder
from bert_models.manifest import MANIFEST, read_manifest, weight_names

GRAPH_FILE, VARIABLES = "saved_model.pb", "variables/variables"
LABEL = "{path}/{number}/.ATTRIBUTES/VARIABLE_VALUE"


def open_saved_model(folder: Path, config: BertConfig | None) -> Source:
    """A SavedModel as a source; its graph is not loaded.

    Raises:
        FileNotFoundError: the variables are missing.
        ValueError: files are damaged, or the folder holds no BERT.
    """
    if not has_checkpoint(folder / VARIABLES):
        raise FileNotFoundError(f"{str(folder)!r} holds {GRAPH_FILE} but no {VARIABLES}.index; fetch it again.")
    checkpoint = TFCheckpoint(folder / VARIABLES)
    if (folder / MANIFEST).is_file():
        return _exported(checkpoint, folder, config)
    return open_objects(checkpoint, config, folder, str(folder))


def _exported(checkpoint: TFCheckpoint, folder: Path, config: BertConfig | None) -> Source:
    manifest = read_manifest(folder)
    # A compressed encoder is more than its config says, hence the whole structure is in the file.
    encoder = build_encoder(config) if config else keras.saving.deserialize_keras_object(manifest["model"])
    paths = {"variables": manifest["variables"], "mlm/head": manifest["mlm"] or []}
    return Source(
        where=str(folder),
        described_by="the given config" if config else MANIFEST.name,
        config=encoder.config,
        encoder=[Weight(name, name, tuple(variable.shape)) for name, variable in weight_names(encoder).items()],
        head=[Weight(w.path, w.path, w.shape) for w in weights(TF1.head, encoder.config)],
        tied={},
        tensors={
            name: tensor
            for path, names in paths.items()
            for number, name in enumerate(names)
            if (tensor := checkpoint.tensors.get(LABEL.format(path=path, number=number)))
        },
        read=checkpoint.read,
        build=lambda: encoder,
        folder=folder,
    )
