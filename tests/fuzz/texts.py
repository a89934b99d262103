"""Targets: vocabularies, tokenizers, configs, data for fine-tuning."""

import json

from fuzz import mutators
from fuzz.target import Target, only_own_errors, written

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "é"]


def run_vocab(data: bytes) -> None:
    """`vocab.txt`."""
    from bert_models.text.tokenize import load_tokenizer
    from bert_models.text.vocabulary import Vocabulary, read_tokens

    file = written("vocab/vocab.txt", data)
    with only_own_errors():
        Vocabulary(read_tokens(file))
    with only_own_errors():
        load_tokenizer(file.parent)(["a cat"])


def run_tokenizer(data: bytes) -> None:
    """`tokenizer.json`."""
    from bert_models.text.tokenize import load_tokenizer
    from bert_models.text.vocabulary import from_backend

    file = written("tokenizer/tokenizer.json", data)
    with only_own_errors():
        tokenizer = load_tokenizer(file.parent)
        from_backend(tokenizer.backend)


def run_settings(data: bytes) -> None:
    """`tokenizer_config.json` and `config.json` beside a vocabulary."""
    from bert_models.text.tokenize import load_tokenizer

    written("settings/vocab.txt", "\n".join(TOKENS).encode())
    for name in ("tokenizer_config.json", "config.json"):
        folder = written(f"settings/{name}", data).parent
        with only_own_errors():
            load_tokenizer(folder)(["a cat"])
        (folder / name).unlink()


def run_config(data: bytes) -> None:
    """`config.json` and `bert_config.json`."""
    from bert_models.checkpoints.config_json import bert_config, read_config, tf1_config

    file = written("config.json", data)
    for reader in (bert_config, tf1_config):
        with only_own_errors():
            read_config(file, reader)


def run_glue(data: bytes) -> None:
    """Tables of GLUE: of classes, of scores, without a heading."""
    from bert_models.finetuning.reading import read_examples
    from bert_models.finetuning.tasks import task_of

    file = written("dev.tsv", data)
    for task in ("cola", "stsb", "rte"):
        with only_own_errors():
            read_examples(task_of(task), file)


def run_squad(data: bytes) -> None:
    """SQuAD's JSON."""
    from bert_models.finetuning.squad import read_questions

    with only_own_errors():
        read_questions(written("dev.json", data))


def tokenizer_seeds() -> list[bytes]:
    from bert_models.text.vocabulary import to_backend

    return [to_backend(TOKENS, settings).to_str().encode() for settings in ({}, {"do_lower_case": False})]


def config_seeds() -> list[bytes]:
    from bert_models.checkpoints.config_json import hugging_face_values
    from bert_models.config import BertConfig

    sizes = {"vocab_size": len(TOKENS), "hidden_size": 8, "num_layers": 1, "num_heads": 2, "max_positions": 20}
    values = hugging_face_values(BertConfig(**sizes), "BertModel")
    return [json.dumps({**values, "do_lower_case": True, "model_max_length": 1e30}).encode()]


GLUE_SEEDS = [
    b"gj04\t1\t\tOur friends.\r\nx\t0\t*\tThem.\n",
    b"index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t5.000\n1\tnews\tc\td\t0.2\n",
    b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n",
]
SQUAD_SEED = {
    "version": "1.1",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "A cat sat.",
                    "qas": [{"id": "1", "question": "What?", "answers": [{"answer_start": 2, "text": "cat"}]}],
                }
            ],
        }
    ],
}


TEXTS = {
    "vocab": Target(run_vocab, lambda: ["\n".join(TOKENS).encode()]),
    "tokenizer": Target(run_tokenizer, tokenizer_seeds, mutators.json_text),
    "settings": Target(run_settings, config_seeds, mutators.json_text),
    "config": Target(run_config, config_seeds, mutators.json_text),
    "glue": Target(run_glue, lambda: GLUE_SEEDS),
    "squad": Target(run_squad, lambda: [json.dumps(SQUAD_SEED).encode()], mutators.json_text),
}
