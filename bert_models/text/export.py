"""`export_preprocessor`: a preprocessor as a SavedModel with the interface of TF Hub's bert_en_uncased_preprocess/3."""

import json
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from bert_models.folders import check_target, new_folder
from bert_models.text.preprocessor import SEQ_LENGTH_KEY, Preprocessor
from bert_models.text.text_ops import TextOps
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import FILE_NAME, SETTINGS_NAME

_STRINGS = tf.TensorSpec([None], tf.string)
_SEQ_LENGTH = tf.TensorSpec([], tf.int32)
_SEGMENTS = [tf.RaggedTensorSpec([None] * (rank + 1), tf.int32, ragged_rank=rank) for rank in (1, 2)]


def export_preprocessor(
    preprocessor: Preprocessor | Tokenizer | Sequence[str] | str | Path, path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a folder that `hub.load` and `hub.KerasLayer` take (after `import tensorflow_text`).

    The loaded object `q` has

    * `q(strings [B])`: `input_word_ids`, `input_mask`, `input_type_ids`, int32 [B, seq_length];
    * `q.tokenize(strings [B])`: ragged int32 [B, words, pieces];
    * `q.tokenize.get_special_tokens_dict()`: int32 scalars `start_of_sequence_id`, `end_of_segment_id`, `padding_id`,
      `mask_id`, `vocab_size`;
    * `q.bert_pack_inputs([first] or [first, second], seq_length=...)`, of ragged int32 [B, pieces] or [B, words,
      pieces], seq_length an int or an int32 tensor, the preprocessor's own if not given;
    * `q.vocab_file`, the asset `vocab.txt`, and a signature `serving_default`.

    The folder may be moved; it holds the vocabulary, as a file too, its rules and the seq_length, so that it also
    serves as `Preprocessor(folder)`.

    Args:
        preprocessor: a `Preprocessor`, or the vocabulary of one with the usual settings.
        path: the folder to make. It is written beside and then renamed.
        overwrite: replace a SavedModel that is there.

    Raises:
        FileExistsError: path exists, and overwrite is off or it is something else than a SavedModel.
        FileNotFoundError: the folder that it should be in does not exist.

    Example:
        bert_models.export_preprocessor(bert_models.Preprocessor("vocab.txt", seq_length=64), "preprocess")
        hub.load("preprocess")(["A sentence."])["input_word_ids"]  # [1, 64]
    """
    path = Path(path)
    check_target(path, overwrite)
    if not isinstance(preprocessor, Preprocessor):
        preprocessor = Preprocessor(preprocessor)
    vocabulary = preprocessor.vocabulary
    settings = {**vocabulary.settings, SEQ_LENGTH_KEY: preprocessor.seq_length}
    with new_folder(path, overwrite) as folder:
        vocab_file, settings_file = folder.parent / FILE_NAME, folder.parent / SETTINGS_NAME
        vocab_file.write_text("".join(f"{token}\n" for token in vocabulary.tokens), "utf-8")
        settings_file.write_text(json.dumps(settings, indent=1), "utf-8")
        exported = _Exported(TextOps(vocabulary), preprocessor.seq_length)
        exported.vocab_file = tf.saved_model.Asset(str(vocab_file))
        exported.settings_file = tf.saved_model.Asset(str(settings_file))
        tf.saved_model.save(exported, str(folder), signatures=exported.__call__)


class _Tokenize(tf.Module):
    def __init__(self, ops: TextOps):
        super().__init__()
        self._ops = ops

    @tf.function(input_signature=[_STRINGS], autograph=False)
    def __call__(self, strings):
        return self._ops.tokenize(strings)

    @tf.function(input_signature=[], autograph=False)
    def get_special_tokens_dict(self):
        return {name: tf.constant(value, tf.int32) for name, value in self._ops.special_ids.items()}


class _Exported(tf.Module):
    def __init__(self, ops: TextOps, seq_length: int):
        super().__init__()
        self._ops = ops
        self._seq_length = seq_length
        self.tokenize = _Tokenize(ops)
        self.bert_pack_inputs = tf.function(
            lambda segments, seq_length=seq_length: ops.pack(segments, seq_length), autograph=False
        )
        for segment in _SEGMENTS:
            for count in (1, 2):
                self.bert_pack_inputs.get_concrete_function([segment] * count)
                self.bert_pack_inputs.get_concrete_function([segment] * count, seq_length=_SEQ_LENGTH)

    @tf.function(input_signature=[_STRINGS], autograph=False)
    def __call__(self, strings):
        return self._ops.pack([self._ops.tokenize(strings)], self._seq_length)
