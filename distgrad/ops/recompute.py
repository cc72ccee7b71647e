"""recompute_grad: memory for time, by running a function again in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from distgrad.core import recording, tree
from distgrad.core.custom import custom_gradient
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

    @custom_gradient
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        draws = streams.replayed()
        with recording.paused(GradientTape), assigned() as state:
            result = f(*args, **kwargs)

        def grad(*upstream: Any, variables: Any = None) -> Any:
            variables = list(variables or ())
            # Tensors of its own, so that this tape finds the arguments and nothing before them.
            leaves = [_copied(a) for a in tree.flatten(args)]
            with as_before(state), draws, GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([a for a in leaves if isinstance(a, Operand) and a.dtype.is_floating])
                tape.watch(variables)
                again = f(*tree.unflatten(args, leaves), **kwargs)
            sources = [a for a in leaves if isinstance(a, Operand)]
            grads = tape.gradient(tree.flatten(again), [sources, variables], list(upstream))
            found = iter(grads[0])
            of_args = [next(found) if isinstance(a, Operand) else None for a in leaves]
            return (of_args, grads[1]) if variables else of_args

        return result, grad

    return functools.wraps(f)(recomputed)


def _copied(value: Any) -> Any:
    return (
        bind(registry["identity"], value._read())
        if hasattr(value, "_read")
        else (bind(registry["identity"], value) if isinstance(value, Operand) else value)
    )
