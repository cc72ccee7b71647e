"""Functions of ``keras.ops`` for label sequences whose places in time are not known (CTC)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.ops.promotion import floated
from distgrad.ops import ctc, ctc_decoding
from distgrad.ops.casting import cast
from distgrad.ops.shape import expand_dims, transpose


def _wide(x: Any) -> Tensor:
    """``x`` as a tensor of float32 or float64."""
    tensor = floated(x)
    return cast(tensor, np.float32) if tensor._data.dtype.itemsize == 2 else tensor


def ctc_loss(
    target: Any, output: Any, target_length: Any, output_length: Any, mask_index: int = 0
) -> Tensor:
    """Minus the logarithm of the chance of each label sequence: [batch].

    ``target`` [batch, longest] are integers, ``output`` [batch, time, classes] logits;
    ``mask_index`` is the class of "nothing". Raises InvalidArgumentError for other shapes.
    """
    logits = _wide(output)
    return ctc.ctc_loss(target, logits, target_length, output_length, False, blank_index=mask_index)


def ctc_decode(
    inputs: Any,
    sequence_lengths: Any,
    strategy: str = "greedy",
    beam_width: int = 100,
    top_paths: int = 1,
    merge_repeated: bool = True,
    mask_index: int | None = 0,
) -> tuple[Tensor, Tensor]:
    """The likeliest label sequences of logits [batch, time, classes].

    "greedy" takes the likeliest class of each step, without repetitions (unless
    ``merge_repeated=False``) and the class of "nothing": int32 [1, batch, time], filled up with -1,
    and minus the sum of the logits that were taken [batch, 1]. "beam_search" follows ``beam_width``
    sequences: [``top_paths``, batch, time], and logarithms of chances [batch, ``top_paths``].
    ``mask_index`` is the class of "nothing", None the last one. Raises ValueError for another
    strategy, InvalidArgumentError where there are fewer paths.
    """
    if strategy not in ("greedy", "beam_search"):
        raise ValueError(
            f"Invalid strategy {strategy}. Supported values are 'greedy' and 'beam_search'."
        )
    logits, lengths = _wide(inputs), cast(as_tensor(sequence_lengths), np.int32)
    blank = -1 if mask_index is None else int(mask_index)
    steps = transpose(logits, (1, 0, 2))
    if strategy == "greedy":
        found = expand_dims(ctc_decoding.greedy(steps, lengths, merge_repeated, blank), 1)
        scores = -found[:, :, 0]
    else:
        found = ctc_decoding.beam_search(steps, lengths, beam_width, top_paths, blank)
        scores = found[:, :, 0]
    labels = transpose(found[:, :, 1:], (1, 0, 2))
    return cast(labels, np.int32), cast(scores, logits.dtype)
