"""Write model_garden_keys.json, the names in Model Garden's checkpoints: `PYTHONPATH=.:tests python <this file>`.

Needs tf-models-official (made with 2.20.0); the test of the same names then checks that nothing changed.
"""

import json
import tempfile
from pathlib import Path

from checkpoint_files import model_garden_keys

FILE = Path(__file__).with_name("model_garden_keys.json")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kinds = model_garden_keys(Path(folder))
    lines = {
        kind: ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in keys.items()) for kind, keys in kinds.items()
    }
    FILE.write_text("{\n" + ",\n".join(f' "{kind}": {{\n{text}\n }}' for kind, text in lines.items()) + "\n}\n")
