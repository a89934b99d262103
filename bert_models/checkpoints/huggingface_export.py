"""`export_huggingface`: an encoder as a folder that `transformers` loads."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
from keras import ops
from safetensors.numpy import save_file

from bert_models.checkpoints.config_json import hugging_face_values
from bert_models.checkpoints.huggingface import CONFIG_FILE, WEIGHTS_FILE
from bert_models.checkpoints.names import HUGGING_FACE, Weight, check_plain, weights
from bert_models.checkpoints.source import named_weights
from bert_models.encoder import Encoder
from bert_models.heads import MaskedLM
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import rules_of

TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
OWNER = "Hugging Face's BERT"


def export_huggingface(
    model: keras.Model, folder: str | Path, *, tokenizer: Tokenizer | None = None, overwrite: bool = False
) -> None:
    """Write `config.json` and `model.safetensors`, float32, for `transformers` and for `bert_models.load`.

    An `Encoder` is loaded there by `BertModel`; a `MaskedLM` by `BertForMaskedLM`, and its encoder, pooler included,
    by `BertModel`. All files are written beside the old ones first, so that a failure leaves none half written.

    Args:
        model: an `Encoder` or a `MaskedLM`.
        folder: where to write; made if it is not there.
        tokenizer: also write `tokenizer.json` and `tokenizer_config.json`, for `AutoTokenizer`.
        overwrite: replace files of these names, if the folder has them.

    Raises:
        TypeError: the model is neither, or the tokenizer is none of `load_tokenizer`.
        ValueError: Hugging Face's BERT has no such structure, or the tokenizer knows more tokens than the encoder.
        FileExistsError: the folder has such files.

    Example:
        bert_models.export_huggingface(encoder, "my_bert", tokenizer=tokenizer)
        transformers.BertModel.from_pretrained("my_bert")
    """
    _check_types(model, tokenizer)
    mlm = isinstance(model, MaskedLM)
    encoder = model.encoder if mlm else model
    check_plain(encoder.config, OWNER)
    if tokenizer is not None and tokenizer.vocab_size > encoder.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, but the encoder knows only "
            f"{encoder.config.vocab_size:,}; give the one that belongs to it."
        )
    tensors = _tensors(encoder, weights(HUGGING_FACE.encoder, encoder.config), prefix="bert." if mlm else "")
    if mlm:
        tensors |= _tensors(model, weights(HUGGING_FACE.head, encoder.config))
    values = hugging_face_values(encoder.config, "BertForMaskedLM" if mlm else "BertModel")
    files = {
        CONFIG_FILE: lambda file: _write_json(file, values),
        # `transformers` refuses a file that does not say which framework's layout it has.
        WEIGHTS_FILE: lambda file: save_file(tensors, file, metadata={"format": "pt"}),
    }
    if tokenizer is not None:
        files[TOKENIZER_FILE] = lambda file: tokenizer.backend.save(str(file))
        files[TOKENIZER_CONFIG_FILE] = lambda file: _write_json(file, _tokenizer_values(tokenizer))
    _write(Path(folder), files, overwrite)


def _check_types(model, tokenizer) -> None:
    if not isinstance(model, Encoder | MaskedLM):
        raise TypeError(
            "export_huggingface takes an encoder of build_encoder, build or load, or a MaskedLM, "
            f"got {type(model).__name__}."
        )
    if not isinstance(tokenizer, Tokenizer | None):
        raise TypeError(f"tokenizer must be one of bert_models.load_tokenizer(folder), got {type(tokenizer).__name__}.")


def _tensors(model: keras.Model, wanted: list[Weight], prefix: str = "") -> dict[str, np.ndarray]:
    variables = named_weights(model)
    if lacking := [weight.path for weight in wanted if weight.path not in variables]:
        raise ValueError(
            f"{OWNER} has dense layers throughout, but this model has no {lacking[0]}: it was compressed. "
            "Save it as .keras, or with bert_models.export."
        )
    return {
        prefix + weight.name: weight.to_file(ops.convert_to_numpy(variables[weight.path]).astype("float32"))
        for weight in wanted
    }


def _tokenizer_values(tokenizer: Tokenizer) -> dict:
    names = ("pad", "unk", "cls", "sep", "mask")
    # `transformers` spells by these rules, not by tokenizer.json, where the class is BERT's.
    rules = rules_of(tokenizer.backend)
    return {
        "tokenizer_class": "BertTokenizerFast" if rules else "PreTrainedTokenizerFast",
        **rules,
        "model_max_length": tokenizer.max_length,
        **{f"{name}_token": f"[{name.upper()}]" for name in names},
    }


def _write_json(file: Path, values: Mapping) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _write(folder: Path, files: Mapping[str, Callable[[Path], None]], overwrite: bool) -> None:
    """Write all files under other names, then give them theirs."""
    if folder.is_file():
        raise NotADirectoryError(f"{str(folder)!r} is a file: give the path of a folder.")
    if not overwrite and (present := [name for name in files if (folder / name).exists()]):
        raise FileExistsError(
            f"{str(folder)!r} has {' and '.join(present)} already: give another folder, or overwrite=True."
        )
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.partial" for name in files}
    try:
        for name, write in files.items():
            write(partial[name])
        for name, file in partial.items():
            file.replace(folder / name)
    finally:
        for file in partial.values():
            file.unlink(missing_ok=True)
