"""A job as plain values: all that a worker needs, picklable, without the machinery of YAML."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from distgrad.config import Config


@dataclass(frozen=True)
class Job:
    """What one run computes (data, layers, loss, optimizer), who computes it, and where it is kept.

    ``layers`` and ``optimizer`` are ``{type: Name, **keywords}``, the loss and the metrics that or
    names; ``every_steps`` is None where
    only the end is saved; ``config_hash`` is the sha256 of all that decides the weights of a step.
    """

    name: str
    seed: int
    device: str
    data: dict[str, Any]
    layers: tuple[dict[str, Any], ...]
    loss: str | dict[str, Any] | None
    metrics: tuple[str | dict[str, Any], ...]
    optimizer: dict[str, Any]
    epochs: int
    global_batch_size: int
    shuffle: bool
    class_weight: str | dict[str, float] | None
    jit: Literal["auto", "strict", "numpy", "off"]
    mixed_precision: str | None
    tensor_float_32: bool
    recompute: bool
    launcher: str
    workers: int
    virtual_shards: int | None
    deterministic: bool
    threads_per_worker: int | None
    overlap: bool | Literal["auto"]
    bucket_bytes: int | None
    shard_optimizer: bool
    check_every_steps: int
    every_steps: int | None
    keep_last: int
    tensorboard: bool | Literal["auto"]
    timeline: tuple[int, int] | None
    run_dir: str | None
    resume: bool | Literal["auto"]
    resolved_yaml: str
    source_yaml: str
    overrides: tuple[str, ...]
    config_hash: str

    @property
    def blas_threads(self) -> int:
        """Threads of BLAS in each worker, whose number decides bits."""
        return self.threads_per_worker or 1

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        run_dir: str | None = None,
        resume: bool | Literal["auto"] = False,
        source_yaml: str = "",
        overrides: tuple[str, ...] = (),
    ) -> Job:
        """The job of a validated config, and of the options that are no part of it."""
        values = config.to_dict()
        train, parallel, checkpoint = values["train"], values["parallel"], values["checkpoint"]
        return cls(
            name=values["name"],
            seed=values["seed"],
            device=values["device"],
            data=values["data"],
            layers=tuple(values["model"]["layers"]),
            loss=values["loss"],
            metrics=tuple(values["metrics"]),
            optimizer=values["optimizer"],
            epochs=train["epochs"],
            global_batch_size=train["global_batch_size"],
            shuffle=train["shuffle"],
            class_weight=train["class_weight"],
            jit=train["jit"],
            mixed_precision=train["mixed_precision"],
            tensor_float_32=train["tensor_float_32"],
            recompute=train["recompute"],
            launcher=parallel["launcher"],
            workers=parallel["workers"],
            virtual_shards=parallel["virtual_shards"],
            deterministic=_is_deterministic(parallel),
            threads_per_worker=parallel["threads_per_worker"],
            overlap=parallel["overlap"],
            bucket_bytes=_bytes(parallel["bucket_mib"]),
            shard_optimizer=parallel["shard_optimizer"],
            check_every_steps=parallel["check_every_steps"],
            every_steps=checkpoint["every_steps"] or None,
            keep_last=checkpoint["keep_last"],
            tensorboard=values["tracking"]["tensorboard"],
            timeline=_steps(values["tracking"]["timeline"]),
            run_dir=run_dir,
            resume=resume,
            resolved_yaml=config.to_yaml(),
            source_yaml=source_yaml,
            overrides=tuple(overrides),
            config_hash=config_hash(values),
        )


def config_hash(values: dict[str, Any]) -> str:
    """The sha256 of the part of a resolved config that decides the weights after a given step.

    The name, the epochs, the launcher, the worker count and the checkpoints do not: a run may be
    resumed with others. What runs the steps does, and is in the commits themselves; whether values
    are computed again does not.
    """
    sections = ("seed", "device", "data", "model", "loss", "metrics", "optimizer")
    mathematics = {key: values[key] for key in sections}
    since = ("columns", "categories", "missing")  # runs from before there were these go on
    mathematics["data"] = {
        key: value for key, value in values["data"].items() if key not in since or value is not None
    }
    free = ("epochs", "jit", "recompute")
    mathematics["train"] = {k: v for k, v in values["train"].items() if k not in free}
    for key in ("tensor_float_32", "class_weight"):  # runs from before there was a choice go on
        if not values["train"].get(key):
            mathematics["train"].pop(key, None)
    parallel = values["parallel"]
    mathematics["parallel"] = {
        "virtual_shards": parallel["virtual_shards"],
        "threads_per_worker": parallel["threads_per_worker"] or 1,
    }
    if values["device"] == "cuda":  # on a CPU every sum is
        mathematics["parallel"]["deterministic"] = _is_deterministic(parallel)
    text = json.dumps(mathematics, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _bytes(mib: float | None) -> int | None:
    return None if mib is None else max(1, int(mib * (1 << 20)))


def _steps(timeline: int | list[int] | None) -> tuple[int, int] | None:
    """The first and the last step of a timeline."""
    if timeline is None:
        return None
    first, last = (1, timeline) if isinstance(timeline, int) else timeline
    return first, last


def _is_deterministic(parallel: dict[str, Any]) -> bool:
    asked = parallel["deterministic"]
    return parallel["virtual_shards"] is not None if asked == "auto" else bool(asked)
