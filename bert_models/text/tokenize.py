"""WordPiece text input: sentences in, the encoder's dict of int32 arrays out.

The work is done by `tokenizers`, the library that Hugging Face checkpoints are made with.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bert_models.text.pack import kept_lengths
from bert_models.text.vocabulary import FILE_NAME, SETTINGS_NAME, read_tokens, to_backend
from tncompress.limits import MOST_JSON, json_object, shown, shown_error

DEFAULT_MAX_LENGTH = 512
JSON_NAME = "tokenizer.json"
# What these values of JSON files must be, as Python and in words
SETTINGS: dict[str, tuple[Any, str]] = {
    "do_lower_case": (bool, "true or false"),
    "strip_accents": (bool | None, "true, false or null"),
    "tokenize_chinese_chars": (bool, "true or false"),
    "model_max_length": (int | float | None, "a number"),
    "max_position_embeddings": (int | None, "a whole number"),
    "vocab_size": (int | None, "a whole number"),
}


class Tokenizer:
    """Turns sentences into `[CLS] sentence [SEP]`, or pairs into `[CLS] first [SEP] second [SEP]`.

    Args:
        backend: a `tokenizers.Tokenizer`; padding and truncation stored in it are not used.
        max_length: longest row in tokens, special tokens included.

    Attributes:
        backend: as given.
        max_length: as given.
        vocab_size: number of ids, one more than the largest.

    Example:
        tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
        tokenizer(["One.", "Two words."])["input_word_ids"].shape  # (2, 5)
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int = DEFAULT_MAX_LENGTH):
        self.backend = backend
        self.backend.no_truncation()
        self.backend.no_padding()
        self._pad_id = backend.token_to_id("[PAD]") or 0
        self.max_length = max_length
        self.vocab_size = 1 + max(backend.get_vocab().values())

    def __call__(
        self,
        sentences: Sequence[str],
        *,
        max_length: int | None = None,
        pairs: Sequence[str] | None = None,
        seq_length: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Tokenise, truncate and pad, to the longest row or to `seq_length`.

        Args:
            sentences: the texts; a literal "[SEP]" in them counts as the special token.
            max_length: cut rows to that many tokens, as many as the encoder takes if not given; a pair shares them
                in turn (`bert_models.text.pack.kept_lengths`).
            pairs: second texts, one for each sentence.
            seq_length: cut and pad rows to exactly that many tokens, as `bert_models.Preprocessor` does.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [n, longest] or [n, seq_length], padded with
            [PAD], 0 and 0.

        Raises:
            TypeError: not a list of strings.
            ValueError: an empty list, another number of pairs, a length out of range, or both lengths.
        """
        check_sentences(sentences)
        if pairs is not None:
            check_pairs(sentences, pairs)
        if max_length is not None and seq_length is not None:
            raise ValueError(f"give max_length or seq_length, not both: got {max_length!r} and {seq_length!r}.")
        name, length = ("max_length", max_length) if seq_length is None else ("seq_length", seq_length)
        length = self.max_length if length is None else length
        special = self.backend.num_special_tokens_to_add(pairs is not None)
        if not isinstance(length, int) or not special < length <= self.max_length:
            raise ValueError(f"{name} must be from {special + 1} to {self.max_length} tokens, got {length!r}.")
        rows = self._rows(sentences, length) if pairs is None else self._paired(sentences, pairs, length - special)
        width = max(map(len, rows)) if seq_length is None else seq_length
        return {
            "input_word_ids": _filled([row.ids for row in rows], width, self._pad_id),
            "input_mask": _filled([row.attention_mask for row in rows], width),
            "input_type_ids": _filled([row.type_ids for row in rows], width),
        }

    def _rows(self, sentences: Sequence[str], length: int) -> list[tokenizers.Encoding]:
        self.backend.enable_truncation(length)
        try:
            return self.backend.encode_batch_fast(list(sentences))
        finally:
            self.backend.no_truncation()

    def _paired(self, sentences: Sequence[str], pairs: Sequence[str], budget: int) -> list[tokenizers.Encoding]:
        # Cut here: `tokenizers` gives the odd token to the second of two long texts, BERT to the first.
        encoded = self.backend.encode_batch_fast([*sentences, *pairs], add_special_tokens=False)
        rows = []
        for first, second in zip(encoded[: len(sentences)], encoded[len(sentences) :], strict=True):
            for segment, kept in zip((first, second), kept_lengths([len(first), len(second)], budget), strict=True):
                segment.truncate(kept)
            rows.append(self.backend.post_process(first, second))
        return rows


def _filled(rows: list[list[int]], width: int, value: int = 0) -> np.ndarray:
    """int32 [n, width], rows filled up with `value`.

    >>> _filled([[1, 2], [3]], width=3).tolist()
    [[1, 2, 0], [3, 0, 0]]
    """
    array = np.full((len(rows), width), value, "int32")
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array


def check_sentences(sentences: Sequence[str], name: str = "sentences") -> None:
    """Refuse what is not a list of strings.

    >>> check_sentences("one sentence")
    Traceback (most recent call last):
    TypeError: sentences must be a list of strings, got one str; write [sentence].
    """
    if isinstance(sentences, str | bytes):
        kind = type(sentences).__name__
        raise TypeError(f"{name} must be a list of strings, got one {kind}; write [sentence].")
    if not hasattr(sentences, "__len__") or not hasattr(sentences, "__getitem__"):
        raise TypeError(f"{name} must be a list of strings, got {type(sentences).__name__}.")
    if len(sentences) == 0:
        raise ValueError(f"{name} must hold at least one string, got none.")
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            kind = type(sentence).__name__
            raise TypeError(f"{name} must be strings, but number {i} is of type {kind}: {sentence!r}.")


def check_pairs(sentences: Sequence[str], pairs: Sequence[str]) -> None:
    """Refuse what is not one string for each sentence."""
    check_sentences(pairs, "pairs")
    if len(pairs) != len(sentences):
        raise ValueError(f"pairs must have one text for each of the {len(sentences)} sentences, got {len(pairs)}.")


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The text side of a Hugging Face checkpoint: `tokenizer.json`, or else `vocab.txt`.

    Rows are at most as long as `config.json` (or `bert_config.json`) and `tokenizer_config.json` say, or 512 tokens.

    Args:
        folder: path of the checkpoint, or of what `bert_models.export` or `export_preprocessor` wrote, whose
            vocabulary is in `assets`.

    Raises:
        FileNotFoundError: there is no such folder or neither file.
        ValueError: a file is damaged, a SavedModel does not say whether it is cased, or its vocabulary is larger
            than the encoder's.

    Example:
        bert_models.load_tokenizer("all-MiniLM-L6-v2")(["A sentence."])
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {str(folder)!r}: give the path of a downloaded checkpoint.")
    place = _folder_of_files(folder)
    file = next((place / name for name in (JSON_NAME, FILE_NAME) if (place / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{str(folder)!r} lacks tokenizer.json or vocab.txt: one is needed.")
    config = encoder_settings(folder)
    tokenizer = tokenizer_of(file, config)
    _check_vocab_size(file, tokenizer.vocab_size, config.get("vocab_size"))
    return tokenizer


def tokenizer_of(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a vocabulary or a `*.json` file, with the settings that lie beside it.

    Args:
        file: which is there.
        config: `encoder_settings`; rows are no longer than these and the file's say.

    Raises:
        ValueError: a file is damaged, or no vocabulary.
    """
    settings = read_settings(file.parent / SETTINGS_NAME)
    backend = _from_json(file) if file.suffix == ".json" else to_backend(read_tokens(file), settings)
    limits = (config.get("max_position_embeddings"), settings.get("model_max_length"))
    # Without a limit `model_max_length` is 1e30 in files, hence min() with the default.
    lengths = [limit for limit in limits if limit is not None and limit >= 1]
    return Tokenizer(backend, int(min([*lengths, DEFAULT_MAX_LENGTH])))


def encoder_settings(folder: Path) -> dict[str, Any]:
    """What the configuration of the encoder in a folder says, none if it has none; as `read_settings`."""
    return read_settings(folder / "config.json") or read_settings(folder / "bert_config.json")


def _folder_of_files(folder: Path) -> Path:
    """Where the text side lies: the folder itself, or `assets` in a SavedModel.

    Raises:
        ValueError: a SavedModel that does not say whether its vocabulary is cased.
    """
    assets = folder / "assets"
    if any((folder / name).is_file() for name in (JSON_NAME, FILE_NAME)) or not (assets / FILE_NAME).is_file():
        return folder
    if not (assets / SETTINGS_NAME).is_file():
        raise ValueError(
            f"{str(folder)!r} does not say whether it is cased: use Preprocessor(folder, lower_case=True or False), "
            f"or put a {SETTINGS_NAME} with do_lower_case into its assets."
        )
    return assets


def read_settings(file: Path) -> dict:
    """The values of a JSON file, none if it is not there.

    Raises:
        ValueError: it is not JSON, or no object.
    """
    if not file.is_file():
        return {}
    try:
        values = json_object(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    for name, (kinds, wanted) in SETTINGS.items():
        if name in values and not isinstance(values[name], kinds):
            raise ValueError(f"{file}: {name} must be {wanted}, got {shown(values[name])}.")
    return values


def _from_json(file: Path) -> tokenizers.Tokenizer:
    if (size := file.stat().st_size) > MOST_JSON:
        raise ValueError(f"{file} is no tokenizer that can be read: it has {size:,} bytes.")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
        backend.encode("a")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library raises nothing narrower, and a panic of Rust is no Exception
        raise ValueError(f"{file} is no tokenizer that can be read: {shown_error(error)}.") from None
    if not backend.get_vocab_size():
        raise ValueError(f"{file} is no tokenizer that can be read: it has no tokens.")
    return backend


def _check_vocab_size(file: Path, found: int, wanted: int | None) -> None:
    if wanted is None or found == wanted:
        return
    if found > wanted:
        raise ValueError(
            f"{file} has {found:,} tokens, but the encoder's embedding has {wanted:,} rows "
            "(vocab_size in config.json). Use the vocabulary that belongs to this checkpoint."
        )
    # Rows are often added to round the size up, so fewer tokens than rows can be right.
    warnings.warn(
        f"{file} has {found:,} tokens and the encoder's embedding {wanted:,} rows; check that they belong together.",
        stacklevel=3,
    )
