"""From the logits of a model trained with CTC to label sequences: the likeliest ones."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.host import on_host

Decoded = tuple[list[SparseTensor], Tensor]


def ctc_greedy_decoder(
    inputs: Any,
    sequence_length: Any,
    merge_repeated: bool = True,
    blank_index: int | None = None,
    name: str | None = None,
) -> Decoded:
    """The likeliest class of each step, without ``blank_index`` (the last class) and repetitions.

    ``inputs`` are logits [time, batch, classes]. Gives a list of one SparseTensor of int64 [batch,
    longest], and minus the sum of the logits that were taken [batch, 1]. Raises
    InvalidArgumentError for other shapes, and for lengths beyond the steps.
    """
    logits, lengths = _checked(inputs, sequence_length)
    found = greedy(logits, lengths, merge_repeated, -1 if blank_index is None else blank_index)
    return [_labels(found[:, 1:])], -cast(found[:, :1], logits.dtype)


def ctc_beam_search_decoder(
    inputs: Any,
    sequence_length: Any,
    beam_width: int = 100,
    top_paths: int = 1,
    name: str | None = None,
) -> Decoded:
    """The ``top_paths`` likeliest label sequences that a search over ``beam_width`` of them finds.

    ``inputs`` are logits [time, batch, classes], the last class that of "nothing". Gives a
    SparseTensor of int64 [batch, longest] for each path, and the logarithms of their chances
    [batch, paths]. Raises InvalidArgumentError for other shapes, for lengths beyond the steps, and
    where more paths are asked for than there are.
    """
    logits, lengths = _checked(inputs, sequence_length)
    found = beam_search(logits, lengths, beam_width, top_paths, -1)
    labels = [_labels(found[:, path, 1:]) for path in range(top_paths)]
    return labels, cast(found[:, :, 0], logits.dtype)


def _checked(inputs: Any, sequence_length: Any) -> tuple[Tensor, Tensor]:
    logits, lengths = as_tensor(inputs), as_tensor(sequence_length)
    if logits._data.ndim != 3 or not is_floating(logits._data.dtype):
        raise InvalidArgumentError(
            f"CTC decoding takes float logits [time, batch, classes], not {logits.dtype.name} of "
            f"shape {tuple(logits.shape)}"
        )
    if lengths._data.shape != logits._data.shape[1:2]:
        raise InvalidArgumentError(
            f"CTC decoding: sequence_length {tuple(lengths.shape)} does not fit a batch of "
            f"{logits._data.shape[1]}"
        )
    return logits, lengths


def _labels(found: Tensor) -> SparseTensor:
    """Rows of labels, which end where the first -1 is; as long as the longest of them."""
    recording.refuse("the longest of decoded rows depends on values")
    rows = found.numpy().astype(np.int64)
    there = rows >= 0
    shape = [len(rows), there.sum(1).max(initial=0)]
    return SparseTensor(np.argwhere(there), rows[there], shape)


# As one array: what a sequence has for a score, and then its labels, filled up with -1.


def greedy(logits: Tensor, lengths: Tensor, merge_repeated: bool, blank: int) -> Tensor:
    """[batch, 1 + time] of logits [time, batch, classes], with the sum of the logits that count."""

    def decode(x: Any, counts: Any) -> np.ndarray:
        x = np.asarray(x)
        steps, batch, classes = x.shape
        found = np.full((batch, 1 + steps), -1.0)
        best = x.argmax(-1)
        for b, length in enumerate(_counts(counts, steps)):
            taken = best[:length, b]
            found[b, 0] = x.max(-1)[:length, b].sum()
            changes = np.append(True, taken[1:] != taken[:-1])[:length]
            kept = taken[(taken != blank % classes) & (changes | (not merge_repeated))]
            found[b, 1 : 1 + len(kept)] = kept
        return found

    return on_host(decode, logits, lengths)


def beam_search(
    logits: Tensor, lengths: Tensor, beam_width: int, top_paths: int, blank: int
) -> Tensor:
    """[batch, paths, 1 + time] of logits [time, batch, classes], with logarithms of chances."""

    def decode(x: Any, counts: Any) -> np.ndarray:
        x = np.asarray(x, np.float64)
        steps, batch, classes = x.shape
        found = np.full((batch, top_paths, 1 + steps), -1.0)
        for b, length in enumerate(_counts(counts, steps)):
            paths = _search(x[:length, b], blank % classes, beam_width)
            if len(paths) < top_paths:
                raise InvalidArgumentError(
                    f"CTC decoding: {top_paths} paths are asked for, and a search over "
                    f"{beam_width} finds {len(paths)}"
                )
            for row, (score, labels) in zip(found[b], paths, strict=False):
                row[0] = score
                row[1 : 1 + len(labels)] = labels
        return found

    return on_host(decode, logits, lengths)


def _counts(lengths: Any, steps: int) -> list[int]:
    counts = [int(n) for n in np.asarray(lengths)]
    if any(not 0 <= n <= steps for n in counts):
        raise InvalidArgumentError(
            f"CTC decoding: sequence_length {counts} must lie between 0 and the {steps} steps"
        )
    return counts


def _search(x: np.ndarray, blank: int, width: int) -> list[tuple[float, tuple[int, ...]]]:
    """(logarithm of its chance, labels) of the likeliest sequences for [time, classes], in order.

    A beam is a sequence, with the chance that it ends in a blank and that it ends in its last
    label. What falls out of the ``width`` best ones is forgotten.
    """
    peak = x.max(1, keepdims=True)
    chances = x - peak - np.log(np.exp(x - peak).sum(1, keepdims=True))
    beams: list[tuple[int, ...]] = [()]
    of_blank, of_label = np.zeros(1), np.full(1, -np.inf)
    for now in chances:
        total = np.logaddexp(of_blank, of_label)
        place = {beam: i for i, beam in enumerate(beams)}
        last = np.array([beam[-1] if beam else -1 for beam in beams])
        stays = of_label.copy()
        children: list[dict[int, int]] = [{} for _ in beams]
        for i, beam in enumerate(beams):
            parent = place.get(beam[:-1]) if beam else None
            if parent is not None:  # it grows out of the sequence before, too
                children[parent][beam[-1]] = i
                before = of_blank if last[parent] == last[i] else total
                stays[i] = np.logaddexp(stays[i], before[parent])
        stays += np.where(last >= 0, now[last], 0)
        blanks = total + now[blank]
        # A label that comes once more is another one only after a blank.
        again = last[:, None] == np.arange(len(now))
        grown = np.where(again, of_blank[:, None], total[:, None]) + now
        grown[:, blank] = -np.inf
        kept = _best(np.logaddexp(blanks, stays), total, grown, children, width)
        of_blank = np.array([-np.inf if label >= 0 else blanks[i] for i, label in kept])
        of_label = np.array([grown[i, label] if label >= 0 else stays[i] for i, label in kept])
        beams = [(*beams[i], label) if label >= 0 else beams[i] for i, label in kept]
    total = np.logaddexp(of_blank, of_label)
    order = np.argsort(-total, kind="stable")
    return [(float(total[i]), beams[i]) for i in order]


def _best(
    scores: np.ndarray,
    total: np.ndarray,
    grown: np.ndarray,
    children: list[dict[int, int]],
    width: int,
) -> list[tuple[int, int]]:
    """The ``width`` best beams, in order: (number, -1), or (number, label) for one that has grown.

    They grow in their order, as TensorFlow has it: one that falls out before its turn grows as
    well, unless the sequence that it came from is tried once more after that, and not taken.
    """
    leaves = [(score, -i, i, -1) for i, score in enumerate(scores)]
    heapq.heapify(leaves)
    here, ends = [True] * len(scores), [False] * len(scores)
    for i in range(len(scores)):
        bottom = leaves[0][0] if len(leaves) >= width else -np.inf
        if ends[i] or not total[i] > bottom:
            continue
        for label in sorted({*np.flatnonzero(grown[i] > bottom).tolist(), *children[i]}):
            child = children[i].get(label)
            if child is not None and here[child]:
                continue
            score = grown[i, label]
            if len(leaves) < width:
                heapq.heappush(leaves, (score, -len(scores) - i, i, label))
            elif score > leaves[0][0]:
                _, _, number, of = heapq.heapreplace(leaves, (score, -len(scores) - i, i, label))
                if of < 0:
                    here[number] = False
                elif of in children[number]:
                    here[children[number][of]] = False
            else:
                if child is not None:
                    ends[child] = True
                continue
            if child is not None:
                here[child] = True
    leaves.sort(reverse=True)
    return [(i, label) for _, _, i, label in leaves]
