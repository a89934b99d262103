"""`Vocabulary`: the WordPiece tokens and the spelling rules that both text sides share, as one value."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tncompress.limits import shown

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILE_NAME = "vocab.txt"
SETTINGS_NAME = "tokenizer_config.json"
MAX_WORD_CHARS = 100  # longer words are one [UNK], as in BERT's own tokenizer
SUFFIX_MARK = "##"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, and how text is spelled before it is looked up.

    Args:
        tokens: the token of id 0, of id 1, ...; with [PAD], [UNK], [CLS], [SEP] and [MASK] among them.
        lower_case: turn capitals into small letters.
        strip_accents: remove accents; if None, where `lower_case` is on.
        split_chinese: every Chinese character is a word.

    Raises:
        TypeError: tokens are not strings.
        ValueError: a special token is missing, or a token occurs twice.

    >>> Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat")).special_ids["mask_id"]
    4
    """

    tokens: tuple[str, ...]
    lower_case: bool = True
    strip_accents: bool | None = None
    split_chinese: bool = True

    def __post_init__(self):
        check_tokens(self.tokens)
        if len(set(self.tokens)) < len(self.tokens):
            (twice, _), *_ = Counter(self.tokens).most_common(1)
            raise ValueError(f"a vocabulary holds every token once, but {shown(twice)} occurs twice; remove one.")

    @property
    def strips_accents(self) -> bool:
        """`strip_accents`, decided."""
        return self.lower_case if self.strip_accents is None else self.strip_accents

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids by the names that TF Hub's preprocessors use, and `vocab_size`."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        return {
            "start_of_sequence_id": ids["[CLS]"],
            "end_of_segment_id": ids["[SEP]"],
            "padding_id": ids["[PAD]"],
            "mask_id": ids["[MASK]"],
            "vocab_size": len(ids),
        }

    @property
    def settings(self) -> dict:
        """The rules under the names of a checkpoint's `tokenizer_config.json`."""
        return _settings(self.lower_case, self.strip_accents, self.split_chinese)


def _settings(lower_case: bool, strip_accents: bool | None, split_chinese: bool) -> dict:
    return {
        "do_lower_case": lower_case,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": split_chinese,
    }


def rules_of(backend: tokenizers.Tokenizer) -> dict:
    """How a tokenizer spells text, under the names of a `tokenizer_config.json`; empty if not as BERT does.

    >>> rules_of(to_backend(SPECIAL_TOKENS, {"do_lower_case": False}))["do_lower_case"]
    False
    """
    rules = backend.normalizer
    if not isinstance(rules, normalizers.BertNormalizer):
        return {}
    return _settings(rules.lowercase, rules.strip_accents, rules.handle_chinese_chars)


def check_tokens(tokens: Sequence[str], source: str = "vocab") -> None:
    """Refuse what is no BERT vocabulary.

    >>> check_tokens(["[PAD]", "cat"])
    Traceback (most recent call last):
    ValueError: vocab is no BERT vocabulary: it lacks [UNK], [CLS], [SEP], [MASK] in 2 lines.
    """
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TypeError(
                f"{source} must be tokens, but number {i} is of type {type(token).__name__}: {shown(token)}."
            )
        if "\n" in token:
            raise ValueError(f"{source} must be tokens of one line each, but number {i} is {shown(token)}.")
    known = set(tokens)
    if lacking := [token for token in SPECIAL_TOKENS if token not in known]:
        raise ValueError(f"{source} is no BERT vocabulary: it lacks {', '.join(lacking)} in {len(tokens)} lines.")


def read_tokens(file: Path) -> tuple[str, ...]:
    """The lines of a `vocab.txt`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8 text, or lacks a special token.
    """
    if not file.is_file():
        raise FileNotFoundError(f"No file {str(file)!r}: give the path of a {FILE_NAME}, or of the folder with it.")
    try:
        # Not str.splitlines: a vocabulary may hold characters that it takes for the end of a line.
        with file.open(encoding="utf-8") as text:
            tokens = tuple(line.rstrip("\n") for line in text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: this is not UTF-8 text ({error}).") from None
    check_tokens(tokens, str(file))
    return tokens


def to_backend(tokens: Sequence[str], settings: dict) -> tokenizers.Tokenizer:
    """A `tokenizers.Tokenizer` with these tokens and the rules of a `tokenizer_config.json`."""
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return backend


def from_backend(backend: tokenizers.Tokenizer) -> Vocabulary:
    """What a `tokenizers.Tokenizer` does, as a `Vocabulary`, if it is one of BERT's kind.

    Raises:
        ValueError: it splits text in another way, adds tokens of its own, or its ids have gaps.
    """
    model, rules = backend.model, backend.normalizer
    found = {
        "model": type(model).__name__,
        "normalizer": type(rules).__name__,
        "pre_tokenizer": type(backend.pre_tokenizer).__name__,
        "unk_token": getattr(model, "unk_token", None),
        "continuing_subword_prefix": getattr(model, "continuing_subword_prefix", None),
        "max_input_chars_per_word": getattr(model, "max_input_chars_per_word", None),
        "clean_text": getattr(rules, "clean_text", None),
        "added_tokens": [t.content for t in backend.get_added_tokens_decoder().values() if not t.special],
    }
    for key, wanted in _OF_BERT.items():
        if found[key] != wanted:
            raise ValueError(
                f"the tokenizer is not of BERT's kind: its {key} is {shown(found[key])}, not {wanted!r}; "
                f"give a {FILE_NAME} instead, or prepare the text in Python."
            )
    by_id = {i: token for token, i in backend.get_vocab().items()}
    if unused := 1 + max(by_id, default=-1) - len(by_id):
        first = next(i for i in count() if i not in by_id)
        raise ValueError(f"the tokenizer's ids must count up from 0, but {unused:,} are unused, the first is {first}.")
    tokens = tuple(by_id[i] for i in range(len(by_id)))
    return Vocabulary(tokens, rules.lowercase, rules.strip_accents, rules.handle_chinese_chars)


_OF_BERT = {
    "model": "WordPiece",
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": SUFFIX_MARK,
    "max_input_chars_per_word": MAX_WORD_CHARS,
    "clean_text": True,
    "added_tokens": [],
}
