"""Functions of ``keras.ops`` for label sequences whose places in time are not known (CTC)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.ops.promotion import floated
from distgrad.ops import ctc
from distgrad.ops.casting import cast
from distgrad.ops.host import on_host


def ctc_loss(
    target: Any, output: Any, target_length: Any, output_length: Any, mask_index: int = 0
) -> Tensor:
    """Minus the logarithm of the chance of each label sequence: [batch].

    ``target`` [batch, longest] are integers, ``output`` [batch, time, classes] logits;
    ``mask_index`` is the class of "nothing". Raises InvalidArgumentError for other shapes.
    """
    logits = floated(output)
    return ctc.ctc_loss(target, logits, target_length, output_length, False, blank_index=mask_index)


def ctc_decode(
    inputs: Any,
    sequence_lengths: Any,
    strategy: str = "greedy",
    beam_width: int = 100,
    top_paths: int = 1,
    merge_repeated: bool = True,
    mask_index: int = 0,
) -> tuple[Tensor, Tensor]:
    """The likeliest class of each step, without repetitions and the class of "nothing".

    Gives int32 [1, batch, time], filled up with -1, and minus the sum of the logits that were taken
    [batch, 1]. Raises ValueError for another strategy, a search over beams included.
    """
    if strategy != "greedy":
        raise ValueError(f"strategy must be 'greedy', not {strategy!r}: no beams are searched here")
    logits = floated(inputs)
    steps = logits._data.shape[1]
    blank = int(mask_index) % logits._data.shape[-1]

    def labels(x: Any, lengths: Any) -> np.ndarray:
        best = np.asarray(x).argmax(-1)
        found = np.full((1, *best.shape), -1, np.int32)
        for row, classes, length in zip(found[0], best, np.asarray(lengths), strict=True):
            taken = classes[: int(length)]
            changes = np.append(True, taken[1:] != taken[:-1])[: len(taken)]
            kept = taken[(taken != blank) & (changes | (not merge_repeated))]
            row[: len(kept)] = kept
        return found

    def scores(x: Any, lengths: Any) -> np.ndarray:
        counted = np.arange(steps) < np.asarray(lengths)[:, None]
        return -np.where(counted, np.asarray(x).max(-1), 0).sum(-1, keepdims=True)

    lengths = cast(as_tensor(sequence_lengths), np.int32)
    return on_host(labels, logits, lengths), on_host(scores, logits, lengths)
