"""Coverage-guided fuzzing of one target, by atheris: `python tests/fuzz/run.py spec --seconds 60 --corpus folder`.

What is found lies in the corpus folder as `crash-*`, `timeout-*` or `oom-*`; add it to tests/fuzz/found.py.
"""

import argparse
import sys
from pathlib import Path

LONGEST_INPUT = 1 << 16  # bytes
SECONDS = 60  # that one input may take on a busy machine; targets.py measures CPU time
FREE_MB = 3000  # of the process, TensorFlow among them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True)
    given = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("Fuzzing needs atheris: pip install atheris.")
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    with atheris.instrument_imports(include=["tncompress", "bert_models"]):
        from fuzz import targets

        target = targets.TARGETS[given.target]
        given.corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (given.corpus / f"seed-{number}").write_bytes(seed)
            target.run(seed)  # imports what it needs
    options = [
        f"-max_total_time={given.seconds}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={FREE_MB}",
        f"-max_len={LONGEST_INPUT}",
        f"-artifact_prefix={given.corpus}/",
        "-print_final_stats=1",
    ]

    def changed(data: bytes, size: int, seed: int) -> bytes:
        return target.mutator(bytes(data), size, seed, atheris.Mutate)  # which is another one while it fuzzes

    changes = {"custom_mutator": changed} if target.mutator else {}
    atheris.Setup([sys.argv[0], *options, str(given.corpus)], target.run, **changes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
