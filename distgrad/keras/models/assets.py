"""Assets: the files that layers keep in a ``.keras`` archive beside their weights.

Keras 3 lays them under ``assets/`` and the path that the layer's weights have. A layer writes its
own in ``save_assets(folder)`` and reads them in ``load_assets(folder)``; of the layers that look
words up Keras writes the vocabulary so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distgrad.keras.models import weights_h5

ROOM = "assets/"
_VOCABULARY = "vocabulary.txt"


def dump(model: Any) -> dict[str, bytes]:
    """The files of all layers that define ``save_assets``, by their names in the archive."""
    found: dict[str, bytes] = {}
    for group in weights_h5.groups(model):
        save = getattr(group.layer, "save_assets", None)
        if save is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            save(folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    found[f"{ROOM}{_within(group.path)}{name}"] = path.read_bytes()
    return found


def load_vocabularies(model: Any, files: Mapping[str, bytes]) -> None:
    """Gives the layers that look words up theirs, before the weights, which go by them."""
    for group in weights_h5.groups(model) if files else ():
        text = files.get(f"{ROOM}{_within(group.path)}{_VOCABULARY}")
        load = getattr(group.layer, "load_vocabulary", None)
        if text is not None and load is not None:
            load(text.decode().split("\n"))


def load(model: Any, files: Mapping[str, bytes]) -> None:
    """Lets the layers that define ``load_assets`` read their files, after their weights."""
    for group in weights_h5.groups(model) if files else ():
        read = getattr(group.layer, "load_assets", None)
        if read is None:
            continue
        start = f"{ROOM}{_within(group.path)}"
        own = {n.removeprefix(start): text for n, text in files.items() if n.startswith(start)}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in own.items():
                if ".." in Path(name).parts or Path(name).is_absolute():
                    raise ValueError(f"{start}{name} lies outside the folder of its layer")
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            read(folder)


def _within(path: str) -> str:
    return f"{path}/" if path else ""
