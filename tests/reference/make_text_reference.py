"""Writes what Keras 3's layers for texts and categories give: text_layers.json.

    python tests/reference/make_text_reference.py

It needs keras and tensorflow; the tests do not. A case is the layer's class and config, what it is
adapted to (or null), what it is called on, its vocabulary (or null), and what it gives.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(3)
CASES: list[dict] = []
TEXTS = [
    "The cat sat on the mat.",
    "A dog -- sat, on the CAT!",
    "",
    "  tabs\tand\nlines  (don't stop) ",
    "Ärger über größe; ÉTÉ",
]
NEW = ["the bird sat on a dog", "über alles", "nothing known here"]


def case(name: str, config: dict, given: Any, adapt: Any = None, **call: Any) -> None:
    layer = getattr(keras.layers, name)(**config)
    as_array = np.asarray
    if adapt is not None:
        layer.adapt(as_array(adapt))
    found = layer(as_array(given), **call)
    words = layer.get_vocabulary() if hasattr(layer, "get_vocabulary") else None
    value = np.asarray(found)
    result = (
        [v.decode() for v in value.ravel()] if value.dtype == object else value.ravel().tolist()
    )
    CASES.append(
        {
            "class": name,
            "config": config,
            "adapt": adapt,
            "given": given,
            "call": call,
            "vocabulary": None
            if words is None
            else [getattr(w, "item", lambda w=w: w)() for w in words],
            "boundaries": getattr(layer, "bin_boundaries", None),
            "dtype": "str" if value.dtype == object else value.dtype.name,
            "shape": list(value.shape),
            "value": result,
        }
    )


def texts() -> None:
    name = "TextVectorization"
    case(name, {}, NEW, TEXTS)
    case(name, {}, [[t] for t in NEW], TEXTS)
    case(name, {"max_tokens": 6, "output_sequence_length": 4}, NEW, TEXTS)
    case(name, {"output_sequence_length": 9}, NEW, TEXTS)
    for standardize in (None, "lower", "strip_punctuation"):
        case(name, {"standardize": standardize}, TEXTS, TEXTS)
    case(name, {"split": "character"}, NEW, TEXTS)
    case(name, {"split": None}, ["dog", "cat", "mat"], ["cat", "dog", "dog"])
    case(name, {"ngrams": 2}, NEW, TEXTS)
    for mode in ("multi_hot", "count", "tf_idf"):
        case(name, {"output_mode": mode}, NEW, TEXTS)
        case(name, {"output_mode": mode, "max_tokens": 30, "pad_to_max_tokens": True}, NEW, TEXTS)
    case(name, {"vocabulary": ["on", "the", "dog"]}, NEW)
    weights = {"vocabulary": ["on", "the", "dog"], "idf_weights": [0.5, 1.0, 2.0]}
    case(name, {**weights, "output_mode": "tf_idf"}, NEW)


def words() -> None:
    name = "StringLookup"
    seen = [["a", "b", "b"], ["c", "b", "a"]]
    given = [["a", "b", "z"], ["c", "", "[UNK]"]]
    case(name, {"vocabulary": ["a", "b", "c"]}, given)
    case(name, {}, given, seen)
    case(name, {"mask_token": ""}, given, seen)
    case(
        name, {"num_oov_indices": 3, "mask_token": "m"}, [["x", "y", "zz", "m", "über", "a"]], seen
    )
    case(name, {"vocabulary": ["[UNK]", "a", "b"]}, given)
    case(name, {"max_tokens": 3}, given, seen)
    for mode in ("one_hot", "multi_hot", "count", "tf_idf"):
        case(name, {"output_mode": mode}, given if mode != "one_hot" else ["a", "c", "z"], seen)
    case(name, {"vocabulary": ["a", "b"], "invert": True}, [[1, 2], [0, 7]])
    case(name, {"vocabulary": ["a", "b"], "invert": True, "mask_token": ""}, [[1, 2], [0, 3]])
    name = "IntegerLookup"
    seen, given = [[3, 5, 5], [9, 5, 3]], [[3, 5, 7], [9, 0, -1]]
    case(name, {"vocabulary": [5, 3, 9]}, given)
    case(name, {}, given, seen)
    case(name, {"mask_token": 0}, given, seen)
    case(name, {"num_oov_indices": 3}, [[7, 8, 9, -4]], seen)
    case(name, {"num_oov_indices": 2, "mask_token": 0, "max_tokens": 5}, given, seen)
    for mode in ("one_hot", "multi_hot", "count", "tf_idf"):
        case(name, {"output_mode": mode}, given if mode != "one_hot" else [3, 9, 1], seen)
    case(name, {"vocabulary": [5, 3, 9], "invert": True}, [[1, 2], [0, 7]])


def hashes() -> None:
    given = [["a", "bcde", "f" * 12], ["über", "", "w" * 40], ["x" * 64, "y" * 65, "z" * 300]]
    for config in ({"num_bins": 1000}, {"num_bins": 7, "mask_value": ""}, {"num_bins": 1}):
        case("Hashing", config, given)
    case("Hashing", {"num_bins": 1000, "salt": 133}, given)
    case("Hashing", {"num_bins": 1000, "salt": [133, 137]}, given)
    case("Hashing", {"num_bins": 100}, [[1, -2], [300, 12345678901]])
    case("Hashing", {"num_bins": 5, "mask_value": 3, "salt": 1}, [[1, 2, 3], [4, 5, 3]])
    case("Hashing", {"num_bins": 4, "output_mode": "one_hot"}, [["a"], ["b"]])
    case("Hashing", {"num_bins": 4, "output_mode": "multi_hot"}, [["a", "b"], ["c", "c"]])


def categories() -> None:
    name = "CategoryEncoding"
    case(name, {"num_tokens": 4, "output_mode": "one_hot"}, [3, 2, 0, 1])
    case(name, {"num_tokens": 4, "output_mode": "one_hot"}, [[3], [2], [0]])
    case(name, {"num_tokens": 4, "output_mode": "one_hot"}, [[3, 1], [2, 0]])
    case(name, {"num_tokens": 4}, [[0, 1], [0, 0], [1, 2], [3, 1]])
    case(name, {"num_tokens": 4}, [0, 3, 3])
    case(name, {"num_tokens": 4, "output_mode": "count"}, [[0, 1], [0, 0], [1, 2], [3, 1]])
    weights = [[0.1, 0.2], [0.1, 0.1], [0.2, 0.3], [0.4, 0.2]]
    given = [[0, 1], [0, 0], [1, 2], [3, 1]]
    case(name, {"num_tokens": 4, "output_mode": "count"}, given, count_weights=weights)
    name = "Discretization"
    given = [[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]]
    case(name, {"bin_boundaries": [0.0, 1.0, 2.0]}, given)
    for mode in ("one_hot", "multi_hot", "count"):
        case(name, {"bin_boundaries": [0.0, 1.0, 2.0], "output_mode": mode}, given)
    case(name, {"bin_boundaries": [0.0, 1.0], "output_mode": "one_hot"}, [[1.0], [2.0], [-1.0]])
    for count in (6, 700):
        seen = RNG.normal(size=(count, 2)).astype(np.float32).tolist()
        case(name, {"num_bins": 4}, given, seen)
        case(name, {"num_bins": 5, "epsilon": 0.1}, given, seen)


def main() -> None:
    for each in (texts, words, hashes, categories):
        each()
    path = Path(__file__).parent / "text_layers.json"
    about = {"keras": keras.__version__, "tensorflow": tf.__version__}
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in CASES)
    path.write_text(f'{{"about": {json.dumps(about)}, "cases": [\n{lines}\n]}}\n')
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
