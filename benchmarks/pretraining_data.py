"""How much raw text becomes pretraining data in a minute of one core, and where the time goes.

The tokenizer is that of all-MiniLM-L6-v2, BERT's own vocabulary.

    python benchmarks/pretraining_data.py corpus.txt [--layout wikitext] [--json FILE]
"""

import argparse
import cProfile
import os
import pstats
import tempfile
from dataclasses import replace
from pathlib import Path

import minilm
from measure import cpu_seconds, use_one_thread, write_json

use_one_thread()
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import bert_models  # noqa: E402 - after the number of threads is set
from bert_models.pretraining.pipeline import write_pretraining_data  # noqa: E402
from bert_models.pretraining.sentences import LAYOUTS  # noqa: E402
from bert_models.pretraining.settings import RECIPES  # noqa: E402

KINDS = {
    "pairs, 128 tokens, once": replace(RECIPES["bert"], duplicates=1),
    "pairs, 128 tokens, 10 times (BERT)": RECIPES["bert"],
    "full sentences, 512 tokens, once, no masks": replace(RECIPES["lambert"], duplicates=1, masking="dynamic"),
    "full sentences, 512 tokens, 10 times": replace(RECIPES["lambert"], duplicates=10),
    "the same, whole words": replace(RECIPES["lambert"], duplicates=10, whole_words=True),
    "full sentences, 512 tokens, 100 times (Lambert)": RECIPES["lambert"],
}
# Name of a function in the profile -> what it does.
PARTS = {"encode": "tokenizing", "_rows": "sharing out to rows", "mask_rows": "masking", "examples": "serialising"}
PARTS |= {"sentences": "splitting sentences", "write_shard": "sorting and writing"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="wikitext")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    tokenizer = bert_models.load_tokenizer(minilm.folder())
    megabytes = options.corpus.stat().st_size / 1e6
    print(f"{megabytes:.2f} MB of text\n\n{'':50}{'CPU s':>8}{'MB/min':>8}{'examples':>10}{'MB out':>8}")
    rows = {}
    for name, kind in KINDS.items():
        settings = replace(kind, layout=options.layout)
        seconds, info = _measured(options.corpus, tokenizer, settings)
        size = sum(shard["bytes"] for shard in info["shards"]) / 1e6
        rows[name] = {"cpu_s": seconds, "mb_per_minute": 60 * megabytes / seconds, "mb_out": size, **info["counts"]}
        print(f"{name:50}{seconds:8.2f}{60 * megabytes / seconds:8.1f}{info['counts']['examples']:10,}{size:8.1f}")
    print(f"\nshares of the time, {(kind := next(iter(KINDS)))}:")
    shares = _shares(options.corpus, tokenizer, replace(KINDS[kind], layout=options.layout))
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"{name:30}{share:6.0%}")
    if options.json:
        write_json(options.json, "pretraining_data", {"text_mb": megabytes, "rows": rows, "shares": shares})


def _measured(corpus: Path, tokenizer, settings) -> tuple[float, dict]:
    info = {}
    with tempfile.TemporaryDirectory() as place:
        write = lambda: info.update(write_pretraining_data([corpus], Path(place, "data"), tokenizer, settings))  # noqa: E731
        return cpu_seconds(write), info


def _shares(corpus: Path, tokenizer, settings) -> dict[str, float]:
    """What part of the time goes where, by a profile; profiling itself makes small functions slower."""
    profile = cProfile.Profile()
    profile.runcall(_measured, corpus, tokenizer, settings)
    stats = pstats.Stats(profile)
    shares = dict.fromkeys(PARTS.values(), 0.0)
    for (file, _, name), (*_, inclusive, _) in stats.stats.items():
        if "pretraining" in file and name in PARTS:
            shares[PARTS[name]] += inclusive / stats.total_tt
    return shares


if __name__ == "__main__":
    main()
