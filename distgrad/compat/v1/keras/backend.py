"""``tf.compat.v1.keras.backend``: Keras's backend, and its session."""

from __future__ import annotations

from typing import Any

from distgrad.compat.v1.sessions import Session

__all__ = ["get_session", "set_session"]


def set_session(session: Any) -> None:
    """Nothing: operations run when they are called."""


def get_session(op_input_list: Any = ()) -> Session:
    """A session, which has nothing to run."""
    return Session()


def __getattr__(name: str) -> object:
    from distgrad import keras

    return getattr(keras.backend, name)
