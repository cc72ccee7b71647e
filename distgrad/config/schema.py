"""The schema of a job: every section, key and default. `load` is how a job is read.

All mistakes of a job are reported at once, each at its line or at the override that made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from inspect import isclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from distgrad.config import constructors
from distgrad.config.document import Document, Path, dump
from distgrad.config.errors import did_you_mean, listing, show
from distgrad.config.sources import Count, Data, Section


class Constructed(Section):
    """``{type: Name, **keywords}``: an object of `distgrad.keras`, its keys those of its class."""

    model_config = ConfigDict(extra="allow")
    type: str


class Layer(Constructed):
    """One layer, by the name and the keywords of its class."""


class Optimizer(Constructed):
    """The optimizer, by the name and the keywords of its class."""


class Loss(Constructed):
    """The loss, by the name and the keywords of its class."""


class Metric(Constructed):
    """A metric, by the name and the keywords of its class."""


def _form(value: Any) -> str:
    return "spec" if isinstance(value, Mapping | Constructed) else "name"


NamedLoss = Annotated[
    Annotated[str, Tag("name")] | Annotated[Loss, Tag("spec")], Discriminator(_form)
]
NamedMetric = Annotated[
    Annotated[str, Tag("name")] | Annotated[Metric, Tag("spec")], Discriminator(_form)
]


class Model(Section):
    """A stack of layers."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]


class Train(Section):
    """How long, and in which batches."""

    epochs: Count = 1
    global_batch_size: Count = 32
    """Samples per step, over all workers together."""
    shuffle: bool = True
    """Whether each epoch visits the samples in an order of its own."""
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """What the loss of a sample of each class counts in training: a number for each class that
    does not count 1, by its name; balanced: all classes weigh the same together; null: all 1."""
    jit: Literal["auto", "strict", "numpy", "off"] = "auto"
    """Whether steps are captured and replayed. auto: on generated kernels where llvmlite is
    installed, else on NumPy, and eagerly where a step cannot be captured; strict: that is an
    error; numpy: without generated kernels; off: eagerly."""
    mixed_precision: Literal["mixed_float16", "mixed_bfloat16"] | None = None
    """In which dtype layers compute that name no `dtype` of their own, with weights in float32:
    bfloat16, or float16 with a scaled loss; null: float32."""
    tensor_float_32: bool = False
    """Whether captured steps on a GPU round the factors of float32 products to 10 bits: several
    times as fast on tensor cores."""
    recompute: bool = False
    """Whether the backward pass computes the inner values of each layer again instead of keeping
    them: less memory, more time, the same bits."""


class Parallel(Section):
    """Who does the work."""

    launcher: Literal["local", "mpi", "ray"] = "local"
    workers: Count = 1
    virtual_shards: Count | None = None
    """Parts that each batch is cut into: the same bits for any number of workers up to it."""
    deterministic: bool | Literal["auto"] = "auto"
    """Whether GPUs add gradients in one fixed order, as CPUs do; auto: where there are virtual
    shards. false is as fast as NCCL can, and gives other bits for another number of workers."""
    threads_per_worker: Count | None = None
    """Threads of one worker. null: on generated kernels, whose bits do not depend on it, its share
    of the cores of its machine (of those that Ray gives it, one); of BLAS one."""
    overlap: bool | Literal["auto"] = "auto"
    """Whether gradients are sent while the backward pass goes on; auto: where cores are free."""
    bucket_mib: Annotated[float, Field(gt=0)] | None = None
    """About how many MiB of gradients are sent at a time; null: 1 on CPUs, where they then stay in
    a core's cache, and 16 on GPUs, where each bucket ends a launch and is a meeting of all workers.
    The 16 are a guess: benchmarks/gpu.py --buckets measures. No bit depends on it."""
    shard_optimizer: bool = False
    """Whether each worker keeps a part of the optimizer's state only (ZeRO-1): less memory."""
    check_every_steps: Annotated[int, Field(ge=0)] = 100
    """Steps between two comparisons of the weights of all workers; 0: only at the end."""

    @field_validator("virtual_shards")
    @classmethod
    def _one_or_more_each(cls, shards: int | None, info: ValidationInfo) -> int | None:
        workers = info.data.get("workers")  # none where it is wrong by itself
        if shards is not None and workers is not None and workers > shards:
            raise PydanticCustomError(
                "too_many_workers",
                f"{workers} workers are more than the {shards} virtual shards; "
                f"use at most {shards} workers, or raise parallel.virtual_shards",
            )
        return shards

    @field_validator("deterministic")
    @classmethod
    def _with_virtual_shards(
        cls, value: bool | Literal["auto"], info: ValidationInfo
    ) -> bool | Literal["auto"]:
        if value is False and info.data.get("virtual_shards") is not None:
            raise PydanticCustomError(
                "not_deterministic",
                "must be true or auto beside virtual_shards, which promise the same bits",
            )
        return value


class Checkpoint(Section):
    """When the run is saved; its end always is."""

    every_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps between two commits; null or 0: only at the end."""
    keep_last: Annotated[int, Field(ge=2)] = 3
    """Commits that are kept: two or more, so that a damaged one is never the last."""


class Tracking(Section):
    """Who is told of the run beside its folder's own files."""

    tensorboard: bool | Literal["auto"] = "auto"
    """Whether events for TensorBoard are written to tb/ in the run folder; auto: where tensorboardX
    is installed; true: without it the run does not start."""
    timeline: Count | tuple[Count, ...] | None = None
    """Steps of which timeline.json in the run folder shows where the time of each worker goes, for
    ui.perfetto.dev: the first and the last, [100, 120], or how many from the first; null: none."""

    @field_validator("timeline")
    @classmethod
    def _from_first_to_last(
        cls, value: int | tuple[int, ...] | None
    ) -> int | tuple[int, ...] | None:
        if isinstance(value, tuple) and (len(value) != 2 or value[0] > value[1]):
            raise PydanticCustomError(
                "no_steps", "must be a first and a last step, or how many from the first"
            )
        return value


class Config(Section):
    """A training job, as a YAML file holds it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Names the run: letters, digits, '-', '_' and '.'."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the split, the weights, the order of samples and the dropout."""
    device: Literal["cpu", "cuda"] = "cpu"
    data: Annotated[Data, Field(discriminator="source")]
    model: Model
    loss: NamedLoss | None
    """A loss, by its name or as `{type: Name, ...}`; null where the layers add their own."""
    metrics: tuple[NamedMetric, ...] = ()
    """Metrics, each by its name or as `{type: Name, ...}`."""
    optimizer: Optimizer
    train: Train = Train()
    parallel: Parallel = Parallel()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, every default filled in."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The job as YAML, every default filled in; loading it gives an equal Config."""
        return dump(self.to_dict())


def validate(document: Document) -> Config:
    """A document as a Config. Raises ConfigError with every problem, those of reading included."""
    if not isinstance(document.value, dict):
        what = "is empty" if document.value is None else "is not a list of `key: value` lines"
        document.complain((), f"the job {what}; configs/digits.yaml shows what one looks like")
        document.raise_problems()
    config = None
    found: list[tuple[Path, str]] = []
    try:
        config = Config.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        found += filter(None, (_translated(detail, document.value) for detail in error.errors()))
    found += _check_constructors(document.value)
    for path, message in _as_one(_without_echoes(found)):
        document.complain(path, message)
    document.raise_problems()
    assert config is not None  # it is missing only where there were problems
    return _resolved(config)


def _without_echoes(found: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """The problems, less the required keys that are missing because they are misspelt."""
    meant = {(path[:-1], message.rpartition("did you mean ")[2]) for path, message in found}
    missing = "required key is missing"
    return [
        (path, message)
        for path, message in found
        if not (path and message.startswith(missing) and (path[:-1], f"{path[-1]}?") in meant)
    ]


def _as_one(found: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """The problems, those of one value that may have several forms as one.

    Where a value has one of the forms but for something in it, that alone is the problem.
    """
    joined: dict[Path, str] = {}
    others = []
    for path, message in found:
        words, got, value = message.rpartition(", got ")
        if not (got and words.startswith("must be ")):
            others.append((path, message))
        elif path in joined:
            before = joined[path].rpartition(got)[0]
            joined[path] = f"{before} or {words.removeprefix('must be ')}{got}{value}"
        else:
            joined[path] = message
    places = [*joined, *(path for path, _ in others)]
    form = {path for path in joined if any(p[: len(path)] == path != p for p in places)}
    return [*((path, text) for path, text in joined.items() if path not in form), *others]


def _resolved(config: Config) -> Config:
    """The config with the defaults of all that has a type filled in."""

    def resolved(kind: constructors.Kind, section: Any) -> Any:
        if not isinstance(section, Constructed):
            return section
        return type(section)(**constructors.resolve(kind, section.model_dump()))

    layers = tuple(resolved("layer", layer) for layer in config.model.layers)
    return config.model_copy(
        update={
            "model": Model(layers=layers),
            "loss": resolved("loss", config.loss),
            "metrics": tuple(resolved("metric", metric) for metric in config.metrics),
            "optimizer": resolved("optimizer", config.optimizer),
        }
    )


def _check_constructors(job: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Problems with layers, optimizer, loss and metrics that only their classes know."""
    model = job.get("model")
    layers = model.get("layers") if isinstance(model, dict) else None
    taken: list[Any] = []
    for index, layer in enumerate(layers if isinstance(layers, list) else []):
        if isinstance(layer, dict):
            yield from _check_one(("model", "layers", index), "layer", layer)
            name = layer.get("name")
            if name is not None and name in taken:
                yield ("model", "layers", index, "name"), "another layer has this name already"
            taken.append(name)
    if isinstance(job.get("optimizer"), dict):
        yield from _check_one(("optimizer",), "optimizer", job["optimizer"])
    yield from _check_one(("loss",), "loss", job.get("loss"))
    metrics = job.get("metrics")
    for index, metric in enumerate(metrics if isinstance(metrics, list) else []):
        yield from _check_one(("metrics", index), "metric", metric)


def _check_one(place: Path, kind: constructors.Kind, value: Any) -> Iterator[tuple[Path, str]]:
    """Problems of one entry that is a name or has a type."""
    if isinstance(value, dict):
        for path, message in constructors.check(kind, value):
            yield (*place, *path), message
    elif isinstance(value, str):
        wrong = constructors.check_name(kind, value)
        if wrong:
            yield place, wrong


_SOURCES: dict[str, type[Section]] = {
    get_args(cls.model_fields["source"].annotation)[0]: cls for cls in get_args(Data)
}

_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "model_type": "must be a section of `key: value` lines",
    "dict_type": "must be a section of `key: value` lines",
    "string_pattern_mismatch": "must hold only letters, digits, '-', '_' and '.', "
    "at most 100 of them, and begin with a letter or a digit",
}


def _translated(detail: ErrorDetails, job: Mapping[str, Any]) -> tuple[Path, str] | None:
    """A pydantic error as a path in the job and a message in the words of the job."""
    kind, context = detail["type"], detail.get("ctx", {})
    path, value = _place(detail["loc"], job, missing=kind == "missing")
    if kind == "missing":
        return path, "required key is missing"
    if kind == "extra_forbidden":
        return path, "unknown key" + _hint(str(path[-1]), path[:-1], job)
    if kind == "too_many_workers":
        return ("parallel", "workers"), detail["msg"]
    if kind == "together":
        return ("data",), detail["msg"]
    if kind == "union_tag_not_found":
        return (*path, "source"), f"required key is missing; there are {listing(_SOURCES)}"
    if kind == "union_tag_invalid":
        tag = context["tag"]
        hint = did_you_mean(tag, _SOURCES) or f"; there are {listing(_SOURCES)}"
        return (*path, "source"), f"unknown data source {tag}{hint}"
    if kind == "too_short":
        # pydantic says so, too, where every item is wrong for another reason.
        return None if value else (path, "must have at least one entry")
    words = _WORDS.get(kind, detail["msg"].replace("Input should be", "must be"))
    return path, f"{words}, got {show(value)}"


def _place(loc: Path, job: Mapping[str, Any], missing: bool) -> tuple[Path, Any]:
    """The keys of a location that the job has, and the value there; of a missing key, its own, too.

    pydantic puts the chosen source of data, and the form of a value that may have several, between.
    """
    path: list[Any] = []
    value: Any = job
    key: Any
    for key in loc:
        if (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int)
        ):
            path.append(key)
            value = value[key]
    return (*path, *loc[len(loc) - missing :]), value


def _hint(key: str, section: Path, job: Mapping[str, Any]) -> str:
    """What an unknown key probably means: one of its section, or one of another section."""
    known = _keys_of(section, job)
    hint = did_you_mean(key, known)
    if hint:
        return hint
    for name in Config.model_fields:
        hint = did_you_mean(key, _keys_of((name,), job), f"{name}.")
        if hint:
            return hint
    return f"; the keys here are {listing(known)}"


def _keys_of(section: Path, job: Mapping[str, Any]) -> Sequence[str]:
    """The keys that may stand in a section; none where that is not yet decided."""
    if not section:
        return list(Config.model_fields)
    if section == ("data",):
        source = _SOURCES.get(_name_in(job, "data", "source"))
        return list(source.model_fields) if source else []
    if section == ("optimizer",):
        return constructors.key_names("optimizer", _name_in(job, "optimizer", "type"))
    cls: Any = Config.model_fields[str(section[0])].annotation
    return list(cls.model_fields) if isclass(cls) and issubclass(cls, Section) else []


def _name_in(job: Mapping[str, Any], section: str, key: str) -> str:
    value = job.get(section)
    name = value.get(key) if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""
