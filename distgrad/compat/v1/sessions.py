"""Sessions and their options, by which scripts let the memory of a GPU grow: it does so anyway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn


class GPUOptions(SimpleNamespace):
    """Options by name (``tf.compat.v1.GPUOptions``), which change nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{"allow_growth": True, "per_process_gpu_memory_fraction": 0.0, **options}
        )


class ConfigProto(SimpleNamespace):
    """Options of a session by name (``tf.compat.v1.ConfigProto``), which change nothing."""

    def __init__(self, **options: Any) -> None:
        graph = SimpleNamespace(
            optimizer_options=SimpleNamespace(), rewrite_options=SimpleNamespace()
        )
        groups = {"gpu_options": GPUOptions(), "graph_options": graph, "device_count": {}}
        super().__init__(**{**groups, **options})


class Session:
    """A session of TensorFlow 1, which has nothing to run (``tf.compat.v1.Session``).

    ``run`` raises RuntimeError, as TensorFlow 2 does while operations run when they are called.
    """

    def __init__(self, target: str = "", graph: Any = None, config: Any = None) -> None:
        self.graph = graph

    def run(self, fetches: Any, feed_dict: Any = None, **options: Any) -> NoReturn:
        raise RuntimeError(
            "The Session graph is empty: there are no graphs here. Operations run when they are "
            "called: take their results, with numpy() as arrays"
        )

    def close(self) -> None:
        """Nothing."""

    def as_default(self) -> Session:
        """Itself, for a ``with`` block."""
        return self

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class InteractiveSession(Session):
    """The same (``tf.compat.v1.InteractiveSession``)."""
