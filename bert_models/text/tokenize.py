"""WordPiece text input: sentences in, the encoder's dict of int32 arrays out.

The work is done by `tokenizers`, the library that Hugging Face checkpoints are made with.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

DEFAULT_MAX_LENGTH = 512
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Turns sentences into `[CLS] sentence [SEP]`, or pairs into `[CLS] first [SEP] second [SEP]`.

    Args:
        backend: a `tokenizers.Tokenizer`; padding and truncation stored in it are not used.
        max_length: longest row in tokens, special tokens included.

    Attributes:
        max_length: as given.
        vocab_size: number of ids, one more than the largest.

    Example:
        tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
        tokenizer(["One.", "Two words."])["input_word_ids"].shape  # (2, 5)
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int = DEFAULT_MAX_LENGTH):
        self._backend = backend
        self._backend.no_truncation()
        self._backend.enable_padding(pad_id=0, pad_type_id=0)
        self.max_length = max_length
        self.vocab_size = 1 + max(backend.get_vocab().values())

    def __call__(
        self,
        sentences: Sequence[str],
        *,
        max_length: int | None = None,
        pairs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Tokenise, truncate and pad to the longest row.

        Args:
            sentences: the texts; a literal "[SEP]" in them counts as the special token.
            max_length: cut rows to that many tokens, of a pair always from the longer text;
                as many as the encoder takes if not given.
            pairs: second texts, one for each sentence.

        Returns:
            `input_word_ids`, `input_mask` and `input_type_ids`, int32 [n, longest], padded with 0.

        Raises:
            TypeError: not a list of strings.
            ValueError: an empty list, another number of pairs, or a max_length out of range.
        """
        check_sentences(sentences)
        texts = list(sentences) if pairs is None else _paired(sentences, pairs)
        self._truncate_to(max_length, is_pair=pairs is not None)
        rows = self._backend.encode_batch_fast(texts)
        return {
            "input_word_ids": np.array([row.ids for row in rows], "int32"),
            "input_mask": np.array([row.attention_mask for row in rows], "int32"),
            "input_type_ids": np.array([row.type_ids for row in rows], "int32"),
        }

    def _truncate_to(self, max_length: int | None, *, is_pair: bool) -> None:
        length = self.max_length if max_length is None else max_length
        special = self._backend.num_special_tokens_to_add(is_pair)
        if not isinstance(length, int) or not special < length <= self.max_length:
            raise ValueError(f"max_length must be from {special + 1} to {self.max_length} tokens, got {length!r}.")
        if (self._backend.truncation or {}).get("max_length") != length:
            self._backend.enable_truncation(length)


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


def _paired(sentences: Sequence[str], pairs: Sequence[str]) -> list[tuple[str, str]]:
    check_sentences(pairs, "pairs")
    if len(pairs) != len(sentences):
        raise ValueError(f"pairs must have one text for each of the {len(sentences)} sentences, got {len(pairs)}.")
    return list(zip(sentences, pairs, strict=True))


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The text side of a Hugging Face checkpoint: `tokenizer.json`, or else `vocab.txt`.

    Rows are at most as long as `config.json` and `tokenizer_config.json` say, or 512 tokens.

    Args:
        folder: path of the checkpoint.

    Raises:
        FileNotFoundError: there is no such folder or neither file.
        ValueError: a file is damaged, or its vocabulary is larger than the encoder's.

    Example:
        bert_models.load_tokenizer("all-MiniLM-L6-v2")(["A sentence."])
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {str(folder)!r}: give the path of a downloaded checkpoint.")
    settings = _read_settings(folder / "tokenizer_config.json")
    if (file := folder / "tokenizer.json").is_file():
        backend = _from_json(file)
    elif (file := folder / "vocab.txt").is_file():
        backend = _from_vocab(file, settings)
    else:
        raise FileNotFoundError(f"{str(folder)!r} lacks tokenizer.json or vocab.txt: one is needed.")
    config = _read_settings(folder / "config.json")
    limits = (config.get("max_position_embeddings"), settings.get("model_max_length"))
    # Without a limit `model_max_length` is 1e30 in files, hence min() with the default.
    lengths = [limit for limit in limits if isinstance(limit, int | float)]
    tokenizer = Tokenizer(backend, int(min([*lengths, DEFAULT_MAX_LENGTH])))
    _check_vocab_size(file, tokenizer.vocab_size, config.get("vocab_size"))
    return tokenizer


def _read_settings(file: Path) -> dict:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: this is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: this must be a JSON object, got {type(values).__name__}.")
    return values


def _from_json(file: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{file} is no tokenizer that can be read: {error}.") from None


def _from_vocab(file: Path, settings: dict) -> tokenizers.Tokenizer:
    try:
        # Not str.splitlines: a vocabulary may hold characters that it takes for the end of a line.
        with file.open(encoding="utf-8") as text:
            lines = [line.rstrip("\n") for line in text]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: this is not UTF-8 text ({error}).") from None
    vocab = {token: i for i, token in enumerate(lines)}
    if lacking := [token for token in SPECIAL_TOKENS if token not in vocab]:
        raise ValueError(f"{file} is no BERT vocabulary: it lacks {', '.join(lacking)} in {len(lines)} lines.")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
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
