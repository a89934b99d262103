"""`WordPieces`: sentences to ids for pretraining, and what masking has to know of the vocabulary."""

import hashlib
import json

import numpy as np
import tokenizers

from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import SPECIAL_TOKENS, SUFFIX_MARK, Vocabulary, to_backend


class WordPieces:
    """A WordPiece vocabulary, made of the text that `tokenizers` saves, so that it can be sent to other processes.

    Special tokens that are written in the text are text: a corpus that speaks of [MASK] gives no masked token.

    Args:
        source: JSON of a `tokenizers.Tokenizer`; `WordPieces.of` takes it from a tokenizer.

    Attributes:
        source: as given.
        pad, cls, sep, mask: ids of the special tokens.
        continues: bool [vocabulary], true for the pieces that continue a word.
        ordinary: int32 [n], the ids that a token may be replaced with: all but special and unused ones.
        digest: short text that differs between vocabularies.

    Raises:
        ValueError: a special token of BERT is lacking.

    >>> pieces = WordPieces.of(Vocabulary((*SPECIAL_TOKENS, "un", "##able", "cat", "[unused0]")))
    >>> pieces.encode(["Unable cat", "[MASK]"])
    [[5, 6, 7], [1, 1, 1]]
    >>> pieces.ordinary.tolist(), pieces.continues.nonzero()[0].tolist()
    ([5, 6, 7], [6])
    """

    def __init__(self, source: str):
        self.source = source
        self._backend = tokenizers.Tokenizer.from_str(source)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        ids = self._backend.get_vocab()
        if lacking := [token for token in SPECIAL_TOKENS if token not in ids]:
            raise ValueError(f"the vocabulary lacks {', '.join(lacking)}: pretraining needs BERT's special tokens.")
        self.pad, self.cls, self.sep, self.mask = (ids[f"[{name}]"] for name in ("PAD", "CLS", "SEP", "MASK"))
        size = 1 + max(ids.values())
        self.continues = np.zeros(size, bool)
        self.continues[[i for token, i in ids.items() if token.startswith(SUFFIX_MARK)]] = True
        no_words = [i for token, i in ids.items() if token in SPECIAL_TOKENS or token.startswith("[unused")]
        self.ordinary = np.setdiff1d(list(ids.values()), no_words).astype("int32")
        if not len(self.ordinary):
            raise ValueError("the vocabulary has special tokens only: there is nothing to pretrain on.")
        self.digest = hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()[:16]

    @classmethod
    def of(cls, tokenizer: "Tokenizer | Vocabulary | WordPieces") -> "WordPieces":
        """From what `bert_models.load_tokenizer` gives, or from a vocabulary.

        Raises:
            TypeError: it is neither.
        """
        if isinstance(tokenizer, WordPieces):
            return tokenizer
        if isinstance(tokenizer, Vocabulary):
            return cls(to_backend(tokenizer.tokens, tokenizer.settings).to_str())
        if isinstance(tokenizer, Tokenizer):
            return cls(tokenizer.backend.to_str())
        raise TypeError(
            f"tokenizer must be what bert_models.load_tokenizer gives, or a Vocabulary, got {type(tokenizer).__name__}."
        )

    @property
    def size(self) -> int:
        """Number of ids, one more than the largest."""
        return len(self.continues)

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """The ids of each sentence, without special tokens."""
        return [row.ids for row in self._backend.encode_batch_fast(sentences, add_special_tokens=False)]
