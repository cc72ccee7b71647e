"""recompute_grad: memory for time, by running a function again in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from distgrad.core import recording, tree
from distgrad.core.custom import own_gradient
from distgrad.core.primitive import bind, registry
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Operand
from distgrad.core.undone import as_before, assigned
from distgrad.ops import streams


def recompute_grad(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` without memory of its intermediate values (``tf.recompute_grad``).

    Tapes keep only the arguments; the backward pass runs ``f`` again, with the random numbers it
    drew the first time (TensorFlow draws new ones, and so differentiates another function where
    ``f`` drops out), and the values from then of the variables that it assigns, which it assigns
    once. Derivatives of any order work. Raises TypeError for an ``f`` that cannot be called.
    """
    if not callable(f):
        raise TypeError(f"recompute_grad needs a function, not {f!r}")

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        draws = streams.replayed()
        with recording.paused(GradientTape), assigned() as state:
            result = f(*args, **kwargs)

        def grad(*upstream: Any, variables: Any = None, known: Any = ()) -> Any:
            variables = list(variables or ())
            # Tensors of its own, so that this tape finds the arguments and nothing before them.
            leaves = _copied(tree.flatten(args))
            with as_before(state), draws, GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([a for a in leaves if isinstance(a, Operand) and a.dtype.is_floating])
                tape.watch(variables)
                sources = [*leaves, *(variable._read() for variable in variables)]
                again = f(*tree.unflatten(args, leaves), **kwargs)
            # What is there comes first, and each reading is added to it, as without recomputing:
            # other sums would have other bits.
            there = [pair for pair in zip(sources, known, strict=True) if pair[1] is not None]
            targets = [*tree.flatten(again), *(source for source, _ in there)]
            seeds = [*upstream, *(before for _, before in there)]
            once = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Operand)}
            grads = tape.gradient(targets, [list(once.values()), variables], seeds)
            found = dict(zip(once, grads[0], strict=True))
            of_args = [found.pop(id(leaf), None) for leaf in leaves]  # where it is given first
            return (of_args, grads[1]) if variables else of_args

        return result, grad

    return functools.wraps(f)(own_gradient(recomputed, adds=True))


def _copied(leaves: list[Any]) -> list[Any]:
    """Copies of the tensors and variables among these values: of each one, once."""
    made: dict[int, Any] = {}
    for leaf in leaves:
        if isinstance(leaf, Operand) and id(leaf) not in made:
            value = leaf._read() if hasattr(leaf, "_read") else leaf
            made[id(leaf)] = bind(registry["identity"], value)
    return [made.get(id(leaf), leaf) for leaf in leaves]
