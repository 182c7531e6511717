"""What a channel came to, as the JSON of its row and back."""

import math
from typing import Any

from recipes.channel import Outcome
from recipes.recipe import Value


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome in types that every database takes as JSON."""
    return {
        "files": {catg: str(path) for catg, path in outcome.files.items()},
        "measurements": {
            catg: [[item.name, plain(item.value)] for item in items] for catg, items in outcome.measurements.items()
        },
        "warnings": list(outcome.warnings),
    }


def plain(value: Value) -> Value | None:
    """Return a number of any library as Python's own; None for NaN and infinity, which JSON does not know."""
    own: Value = value.item() if hasattr(value, "item") else value
    return None if isinstance(own, float) and not math.isfinite(own) else own
