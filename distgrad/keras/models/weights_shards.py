"""Weights in several ``.weights.h5`` files, and a ``.weights.json`` that says which has what.

Keras shares out large ones so. Source: ``ShardedH5IOStore`` of ``keras/src/saving/saving_lib.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core import files
from distgrad.keras.models import weights_h5
from distgrad.keras.models.model import Model


def write(model: Model, path: Path, most: float) -> None:
    """Writes the weights into files beside ``path``, each of at most so many GiB, and ``path``.

    Raises ValueError for a weight that is larger than that, MissingExtraError without h5py.
    """
    most *= 1024**3
    parts: list[list[weights_h5.Stored]] = [[]]
    places: dict[str, list[str]] = {}
    filled = total = 0
    for stored in weights_h5.stored(model):
        for key, array in stored.arrays.items():
            if array.nbytes > most:
                raise ValueError(
                    f"{stored.path}/vars/{key} has {array.nbytes} bytes, more than max_shard_size "
                    f"allows ({most:.0f}): make that larger"
                )
            total, filled = total + array.nbytes, filled + array.nbytes
            if filled > most:
                parts.append([])
                filled = array.nbytes
            parts[-1].append(stored._replace(arrays={key: array}))
            inside = places.setdefault("/" + weights_h5.join(stored.path, "vars"), [])
            if (name := _name(path, len(parts) - 1)) not in inside:
                inside.append(name)
    for number, part in enumerate(parts):
        files.replace(path.with_name(_name(path, number)), weights_h5.pack(part))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    files.replace(path, json.dumps(index, indent=4).encode())


def read(path: Path) -> dict[str, dict[Any, np.ndarray]]:
    """All arrays, as ``weights_h5.parse`` gives those of one file. Raises ValueError, OSError."""
    listed = json.loads(path.read_bytes())["weight_map"].values()
    names = {name for each in listed for name in ([each] if isinstance(each, str) else each)}
    found: dict[str, dict[Any, np.ndarray]] = {}
    for name in sorted(names):
        for place, arrays in weights_h5.parse(path.with_name(name).read_bytes()).items():
            found.setdefault(place, {}).update(arrays)
    return found


def _name(path: Path, number: int) -> str:
    return f"{path.name.removesuffix('.weights.json')}_{number:05}.weights.h5"
