"""``keras.applications``: listings import it, often for a name that they do not use.

No architecture and no weights of ImageNet are kept here, and any use says so.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: no pretrained models are kept here. Build "
        "the network of keras.layers, and give it weights that Keras has saved: "
        "model.load_weights('NAME.weights.h5'), or keras.models.load_model('NAME.keras')"
    )
