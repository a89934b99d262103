"""tncompress: trained neural networks made smaller and faster with tensor networks.

`replace_dense(model)` is the main thing. Importing the package loads neither Keras nor TensorFlow; the names that need
them are loaded when first used.
"""

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Spec": "tncompress.network.spec",
    "plan": "tncompress.network.plan",
    "contract": "tncompress.network.plan",
    "to_dense": "tncompress.network.plan",
    "cost": "tncompress.network.cost",
    "fastest": "tncompress.hardware.roofline",
    "tune": "tncompress.hardware.tune",
    "tune_encoder": "tncompress.hardware.tune_encoder",
    "FORMS": "tncompress.forms",
    "register_form": "tncompress.forms",
    "Moments": "tncompress.fitting.moments",
    "fit": "tncompress.fitting.fit",
    # from here on with Keras
    "TNDense": "tncompress.layers.dense",
    "TNFeedForward": "tncompress.layers.feed_forward",
    "TNEmbedding": "tncompress.layers.embedding",
    "Budget": "tncompress.fitting.budget",
    "BudgetError": "tncompress.fitting.budget",
    "find_sites": "tncompress.conversion.sites",
    "Calibration": "tncompress.conversion.calibrate",
    "calibrate": "tncompress.conversion.calibrate",
    "replace_dense": "tncompress.conversion.replace",
    "densify": "tncompress.conversion.replace",
    "preview": "tncompress.conversion.preview",
    "fold": "tncompress.conversion.folding",
    "unfold": "tncompress.conversion.folding",
    "recover": "tncompress.conversion.recover",
    "load": "tncompress.conversion.saving",
    "report": "tncompress.reporting.report",
    "export": "tncompress.exporting.export",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:
    # Saved models name our classes; Keras finds them once they are registered.
    import tncompress.conversion.saving  # noqa: F401
