"""`Preprocessor`: strings to the encoder's inputs as a Keras layer, in Python, `tf.data` and functional models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from bert_models.inputs import INPUT_NAMES
from bert_models.text.tokenize import Tokenizer, check_pairs, check_sentences, load_tokenizer, read_settings
from bert_models.text.vocabulary import SETTINGS_NAME, Vocabulary, from_backend, read_tokens

DEFAULT_SEQ_LENGTH = 128
SEQ_LENGTH_KEY = "seq_length"  # beside the rules of an exported preprocessor
_SPECIAL_TOKENS = 2  # [CLS] and [SEP] of a single text


@keras.saving.register_keras_serializable(package="bert_models")
class Preprocessor(keras.layers.Layer):
    """Strings [B] -> `input_word_ids`, `input_mask`, `input_type_ids`, int32 [B, seq_length].

    Its arrays equal those of `bert_models.load_tokenizer(...)(..., seq_length=...)`; `docs/text.md` lists the rare text
    where they do not. It works on Python strings, on string tensors, in `tf.data.Dataset.map`, and on
    `keras.Input((), dtype="string")`. The vocabulary is part of its config, hence of a saved model.

    Args:
        vocab: a `vocab.txt`, the folder of a checkpoint or of an exported preprocessor, a list of tokens, or a
            tokenizer of `load_tokenizer`.
        seq_length: tokens in a row, special tokens included; longer texts are cut, shorter ones padded. If None, what
            the folder of an exported preprocessor says, else 128.
        lower_case: turn capitals into small letters; if None, what the folder says, else True.
        strip_accents: remove accents; if None, what the folder says, else what `lower_case` is.
        split_chinese: every Chinese character is a word; if None, what the folder says, else True.

    Attributes:
        vocab: list of the tokens.
        seq_length, lower_case, strip_accents, split_chinese: as decided.

    Raises:
        ImportError: tensorflow_text is not installed.
        FileNotFoundError: there is no such file or folder.
        TypeError, ValueError: a vocabulary that cannot be used, or a seq_length without room for a token.

    Example:
        preprocessor = bert_models.Preprocessor("all-MiniLM-L6-v2", seq_length=64)
        preprocessor(["One sentence."], pairs=["Another one."])["input_word_ids"]  # [1, 64]
        dataset.batch(32).map(preprocessor)
    """

    def __init__(
        self,
        vocab: str | Path | Sequence[str] | Tokenizer,
        *,
        seq_length: int | None = None,
        lower_case: bool | None = None,
        strip_accents: bool | None = None,
        split_chinese: bool | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        from bert_models.text import text_ops

        rules = {"lower_case": lower_case, "strip_accents": strip_accents, "split_chinese": split_chinese}
        vocabulary = read_vocabulary(vocab, {name: value for name, value in rules.items() if value is not None})
        self.seq_length = text_ops.checked_seq_length(
            _stored_seq_length(vocab) if seq_length is None else seq_length, _SPECIAL_TOKENS
        )
        self.vocab = list(vocabulary.tokens)
        self.lower_case = vocabulary.lower_case
        self.strip_accents = vocabulary.strips_accents
        self.split_chinese = vocabulary.split_chinese
        self._ops = text_ops.TextOps(vocabulary)
        # Strings are no arrays to Keras, and XLA has none.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.vocab)

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens and rules as one value."""
        return self._ops.vocabulary

    def __call__(self, sentences, pairs=None, **kwargs):
        # Checked here, for Keras wraps what an error in `call` says into a story of many lines.
        if isinstance(sentences, keras.KerasTensor):
            _check_symbolic(sentences, pairs)
        else:
            sentences, *rest = _texts(sentences, pairs)
            pairs = rest[0] if rest else None
        return super().__call__(sentences, pairs=pairs, **kwargs)

    def call(self, sentences, pairs=None):
        segments = [self.tokenize(texts) for texts in _texts(sentences, pairs)]
        return self._ops.pack(segments, self.seq_length)

    def compute_output_spec(self, sentences, pairs=None):
        shape = (*sentences.shape, self.seq_length)  # [B, seq_length]
        return {name: keras.KerasTensor(shape, dtype="int32") for name in INPUT_NAMES}

    def tokenize(self, sentences):
        """Strings [B] -> ragged int32 [B, words, pieces], without special tokens."""
        return self._ops.tokenize(_texts(sentences)[0])

    def bert_pack_inputs(self, segments, seq_length=None):
        """One or two ragged tensors of `tokenize` (or with words and pieces merged) -> what a call returns.

        Args:
            segments: `[first]` or `[first, second]`, ragged integers [B, pieces] or [B, words, pieces].
            seq_length: tokens in a row, an int or an int32 tensor; if None, the preprocessor's own.
        """
        return self._ops.pack(segments, self.seq_length if seq_length is None else seq_length)

    def get_config(self) -> dict:
        rules = {name: getattr(self, name) for name in ("lower_case", "strip_accents", "split_chinese")}
        return {**super().get_config(), "vocab": self.vocab, "seq_length": self.seq_length, **rules}


def read_vocabulary(source: str | Path | Sequence[str] | Tokenizer, rules: Mapping[str, bool]) -> Vocabulary:
    """The vocabulary of a file, folder, list or tokenizer; `rules` (`lower_case`, ...) override what the source says.

    Raises: as `Preprocessor`; needs no tensorflow_text.

    >>> read_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"], {"lower_case": False}).strips_accents
    False
    """
    if isinstance(source, Tokenizer):
        return replace(from_backend(source.backend), **rules)
    if isinstance(source, list | tuple):
        return Vocabulary(tuple(source), **rules)
    if not isinstance(source, str | Path):
        raise TypeError(
            f"vocab must be a path, a list of tokens or a tokenizer of load_tokenizer, got {type(source).__name__}."
        )
    path = Path(source)
    if not path.is_dir():
        return Vocabulary(read_tokens(path), **rules)
    if (path / "saved_model.pb").is_file():
        path = path / "assets"
        if not (path / SETTINGS_NAME).is_file() and "lower_case" not in rules:
            raise ValueError(f"{str(source)!r} does not say whether it is cased: give lower_case=True or False.")
    return replace(from_backend(load_tokenizer(path).backend), **rules)


def _stored_seq_length(source) -> int:
    """What `export_preprocessor` wrote into the folder, if it is one of its folders."""
    path = Path(source) if isinstance(source, str | Path) else None
    settings = read_settings(path / "assets" / SETTINGS_NAME) if path else {}
    return settings.get(SEQ_LENGTH_KEY, DEFAULT_SEQ_LENGTH)


def _check_symbolic(sentences: keras.KerasTensor, pairs) -> None:
    """Refuse what cannot become part of a model."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"strings inside a model need Keras's tensorflow backend, but it runs on {keras.backend.backend()}; "
            "prepare them before, with dataset.map(preprocessor) or preprocessor(strings)."
        )
    if not isinstance(pairs, keras.KerasTensor | None):
        raise TypeError(f"pairs must be a keras.Input as the sentences are, got {type(pairs).__name__}.")
    for texts in (sentences, pairs):
        if texts is not None:
            _check_strings(texts.dtype, len(texts.shape))


def _texts(sentences, pairs=None) -> list:
    """The string tensors [B] of one or two segments."""
    import tensorflow as tf

    if not (isinstance(sentences, tf.Tensor) or isinstance(pairs, tf.Tensor)):
        sentences, pairs = map(_listed, (sentences, pairs))
        check_sentences(sentences)
        if pairs is not None:
            check_pairs(sentences, pairs)
    tensors = [tf.convert_to_tensor(texts) for texts in (sentences, pairs) if texts is not None]
    for texts in tensors:
        _check_strings(texts.dtype.name, texts.shape.rank)
    return tensors


def _check_strings(dtype: str, rank: int | None) -> None:
    if dtype != "string" or rank != 1:
        raise TypeError(f"strings must be a string tensor [batch], of rank 1, got {dtype} of rank {rank}.")


def _listed(texts):
    return texts.tolist() if isinstance(texts, np.ndarray) else texts
