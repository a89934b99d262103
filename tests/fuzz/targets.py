"""Everything that reads what somebody else wrote, by name, as functions of bytes with inputs to begin with."""

from fuzz.target import Target
from fuzz.texts import TEXTS
from fuzz.training import TRAINING
from fuzz.values import VALUES
from fuzz.weights import WEIGHTS

TARGETS: dict[str, Target] = {**VALUES, **TEXTS, **TRAINING, **WEIGHTS}
