"""Write golden_*.npz: outputs of TensorFlow Model Garden's encoders, one small model for each of the four cards.

The weights are not stored: `rule_weight` makes them from the names of our variables. Model Garden is installed by
`pip install --no-deps tf-models-official`, with the packages that its imports ask for. Run it from the repository:
PYTHONPATH=.:tests python tests/data/make_golden.py
"""

from pathlib import Path

import numpy as np

GOLDEN_STDDEV = 0.05  # large enough that every weight of so narrow a model matters
FOLDER = Path(__file__).parent

# Two segments, one row full and two padded, the last one very short; positions of words, once one filled up with 0.
IDS = [[2, 17, 49, 5, 3, 31, 8, 8, 3], [2, 40, 21, 3, 33, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0, 0]]
TYPES = [[0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0, 0], [0] * 9]
POSITIONS = [[2, 6], [4, 1], [1, 0]]


def batch() -> dict[str, np.ndarray]:
    """The inputs, int32 [3, 9] and [3, 2].

    >>> batch()["input_mask"].sum(axis=1).tolist()
    [9, 6, 2]
    """
    ids, types, positions = (np.array(x, "int32") for x in (IDS, TYPES, POSITIONS))
    mask = (ids > 0).astype("int32")
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types, "masked_lm_positions": positions}


def main() -> None:
    from oracles_model_garden import FEATURES, SMALL, model_garden_outputs

    from bert_models.presets import preset

    for name, sizes in SMALL.items():
        outputs = model_garden_outputs(preset(name).config_with(**sizes), batch(), GOLDEN_STDDEV)
        np.testing.assert_array_equal(outputs.pop("sequence_output"), outputs["encoder_outputs"][-1])
        kept = {key: x if key == "mlm_logits" else x[..., FEATURES] for key, x in outputs.items()}
        file = FOLDER / f"golden_{name.split('/')[0]}.npz"
        np.savez_compressed(file, **batch(), **kept, stddev=np.float64(GOLDEN_STDDEV))
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
