"""`load` and `load_mlm`: an encoder from any checkpoint that is known."""

from pathlib import Path

from bert_models.checkpoints import huggingface, tf1
from bert_models.checkpoints.config_json import given_config
from bert_models.checkpoints.hub import GRAPH_FILE, open_saved_model
from bert_models.checkpoints.model_garden import open_objects
from bert_models.checkpoints.source import Source, check_vocabulary, fill, read_arrays
from bert_models.checkpoints.tf_checkpoint import (
    TFCheckpoint,
    has_checkpoint,
    index_file,
    only_prefix,
    prefix_of,
    prefixes_in,
)
from bert_models.config import BertConfig
from bert_models.encoder import Encoder
from bert_models.heads import MaskedLM
from tncompress.conversion.saving import load as load_keras


def load(
    path: str | Path,
    *,
    config: BertConfig | str | None = None,
    allow_unused: bool = False,
    allow_missing: bool = False,
) -> Encoder:
    """An encoder with the weights of a checkpoint, whose format is found out.

    | path | what it is |
    |---|---|
    | folder with `config.json` and `model.safetensors` | Hugging Face, with or without the prefix `bert.` |
    | prefix, or folder with one, and `bert_config.json` | the first BERT, TensorFlow 1 |
    | prefix, or folder with one | TF2 objects of TensorFlow Model Garden; give `config` |
    | file `.keras` | an encoder saved with `encoder.save`, compressed or not |
    | folder with `saved_model.pb` | written by `bert_models.export`, or a TF Hub one of Model Garden; give `config` |

    Names, shapes and dtypes are compared before a model is built. What is in files but not in an encoder is left out
    in silence: the heads of pretraining, counters and slots of optimizers. "gelu" is the exact one in a Hugging Face
    `config.json` and its tanh approximation in a `bert_config.json`, as in the programs that trained them.

    Args:
        path: of the folder, or prefix of a TensorFlow checkpoint: "uncased/bert_model.ckpt".
        config: a `BertConfig`, or the name of a preset, in place of what the files say; needed where they say nothing.
        allow_unused: leave out weights that the encoder has no place for, and warn of them, not refuse the file.
        allow_missing: keep new random weights where the file has none, and warn of them, not refuse the file.

    Raises:
        FileNotFoundError: there is no such folder or checkpoint, or one of its files is missing.
        NotADirectoryError: the path is a file, and no `.keras`.
        ValueError: a file is damaged, or it does not hold the encoder that is described.

    Example:
        encoder = bert_models.load("all-MiniLM-L6-v2")
        tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
        encoder(tokenizer(["A sentence."]))["pooled_output"]  # [1, 384]
        encoder = bert_models.load("tn_bert_training/ckpt-100", config="tn_bert")
    """
    if is_keras_file(path):
        return _from_keras_file(path, Encoder, config)
    source, arrays = _open_and_read(path, config, False, allow_unused, allow_missing)
    encoder = source.build()
    fill(encoder, arrays)
    return encoder


def load_mlm(
    path: str | Path,
    *,
    config: BertConfig | str | None = None,
    allow_unused: bool = False,
    allow_missing: bool = False,
) -> MaskedLM:
    """An encoder with its masked-LM head; its `encoder` is what `load` gives. Arguments and errors as there.

    The table of the head must be the table of words, as in every BERT.

    Example:
        mlm = bert_models.load_mlm("bert-base-uncased")
        mlm({**batch, "masked_lm_positions": [[3]]})["mlm_logits"]  # [1, 1, 30522]
    """
    if is_keras_file(path):
        return _from_keras_file(path, MaskedLM, config)
    source, arrays = _open_and_read(path, config, True, allow_unused, allow_missing)
    model = MaskedLM(source.build())
    fill(model, arrays)
    return model


def is_keras_file(path: str | Path) -> bool:
    """Whether a path is that of a `.keras` file, be it there or not.

    >>> is_keras_file("encoder.keras"), is_keras_file("uncased/bert_model.ckpt")
    (True, False)
    """
    return Path(path).suffix == ".keras" and not Path(path).is_dir()


def _from_keras_file(path: str | Path, kind: type, config):
    if config is not None:
        raise ValueError(f"{str(path)!r} is a .keras file, which has its own config: leave config= out.")
    model = load_keras(path)
    if not isinstance(model, kind):
        raise ValueError(
            f"{str(path)!r} holds a model of class {type(model).__name__}, wanted was "
            f"{'an Encoder' if kind is Encoder else 'a MaskedLM'}: load it with tncompress.load."
        )
    return model


def _open_and_read(path, config, mlm: bool, allow_unused: bool, allow_missing: bool) -> tuple[Source, dict]:
    source = open_source(Path(path), given_config(config))
    check_vocabulary(source)
    return source, read_arrays(source, mlm=mlm, allow_unused=allow_unused, allow_missing=allow_missing)


def open_source(path: Path, config: BertConfig | None) -> Source:
    """The checkpoint at a path, of whatever format."""
    if not path.is_dir():
        if has_checkpoint(path):
            return _open_tensorflow(path, config)
        raise _nothing_there(path)
    if (path / GRAPH_FILE).is_file():
        return open_saved_model(path, config)
    if prefixes_in(path) and not (path / huggingface.WEIGHTS_FILE).is_file():
        return _open_tensorflow(only_prefix(path), config)
    return huggingface.open_folder(path, config)


def _open_tensorflow(prefix: Path, config: BertConfig | None) -> Source:
    checkpoint = TFCheckpoint(prefix)
    if checkpoint.nodes:
        return open_objects(checkpoint, config, prefix.parent, str(prefix))
    return tf1.open_checkpoint(checkpoint, config)


def _nothing_there(path: Path) -> OSError:
    if path.is_file():
        if prefix := prefix_of(path):
            return NotADirectoryError(f"{str(path)!r} is one file of a checkpoint: give its prefix, {prefix!r}.")
        return NotADirectoryError(
            f"{str(path)!r} is a file: give a folder, the prefix of a TensorFlow checkpoint, or a .keras file."
        )
    if path.parent.is_dir() and (names := prefixes_in(path.parent)):
        return FileNotFoundError(
            f"No checkpoint {str(path)!r}: there is no {index_file(path).name}, "
            f"but the folder holds the checkpoint{'s' if names[1:] else ''} {', '.join(names)}."
        )
    return FileNotFoundError(
        f"No folder {str(path)!r}, and no {index_file(path).name} either: give the path of a local checkpoint, "
        f"not a hub name, or the prefix of a TensorFlow one, {tf1.CONFIG_FILE} beside it."
    )
