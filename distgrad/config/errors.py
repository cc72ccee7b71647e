"""What is wrong with a job, where it stands, and what was probably meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable
from typing import Any

# What people type, and what the schema calls it; difflib finds slips of the pen, not synonyms.
_ALIASES = {
    "lr": "learning_rate",
    "bs": "global_batch_size",
    "batch_size": "global_batch_size",
    "backend": "launcher",
    "num_workers": "workers",
    "n_workers": "workers",
    "world_size": "workers",
    "shards": "virtual_shards",
    "threads": "threads_per_worker",
    "dataset": "data",
    "criterion": "loss",
    "optim": "optimizer",
    "training": "train",
    "num_epochs": "epochs",
    "save_every": "every_steps",
    "class": "type",
    "kind": "type",
}


class ConfigError(Exception):
    """The job cannot be used: ``problems`` holds one line per mistake, in the order of the file.

    A line reads ``job.yaml:5:3: optimizer.learning_rte: unknown key, did you mean learning_rate?``.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple:
        return type(self), (self.problems,)


def did_you_mean(word: str, known: Collection[str], section: str = "") -> str:
    """``", did you mean X?"`` for the name of ``known`` nearest to ``word``, or ``""``."""
    alias = _ALIASES.get(word.lower())
    if alias in known:
        return f", did you mean {section}{alias}?"
    # Names are compared without case, so that `dense` and `adam` find their classes.
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f", did you mean {section}{by_lower[close[0]]}?" if close else ""


def show(value: Any) -> str:
    """``value`` as it may be written in YAML, cut to one short piece of a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def listing(names: Iterable[str]) -> str:
    """Names for a message, one after the other."""
    return ", ".join(names) or "(none)"
