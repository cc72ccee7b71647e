"""Every export is run beside the model before it gets its name on the disk."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.compile.program import Apply, Program, Value
from distgrad.core.errors import ExportError, MissingExtraError
from distgrad.export import onnx_file
from distgrad.export.record import Input

# Others than those that were recorded, so that sizes that are not linear in the batch are found.
BATCHES = (1, 5)
_FLOATS = {"float32": 1e-4, "float64": 1e-9, "half": 2e-2}  # of numbers around 1
_CARRY = {"cast_float", "cast_discrete", "reshape_to", "permute", "broadcast_to", "getitem"}
_CARRY |= {"rint", "floor", "identity", "join", "split_at"}


def runner(content: bytes) -> tuple[Callable[[dict[str, np.ndarray]], list[np.ndarray]], str]:
    """What computes the outputs of a file, and what it is: onnxruntime, or onnx's own evaluator."""
    try:
        session, name = session_of(content)
    except MissingExtraError:
        session, name = onnx_file.evaluator(content), f"onnx {onnx_file.version()}"

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return session.run(None, feeds)
        except Exception as error:  # of classes of its own, below RuntimeError or not
            raise ExportError(f"{name} cannot run the ONNX file: {error}") from error

    return run, name


def session_of(content: bytes) -> tuple[Any, str]:
    """A session of onnxruntime on one thread, and its version. Raises MissingExtraError."""
    try:
        import onnxruntime
    except ImportError:
        raise _missing() from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes of its own
        raise ExportError(f"onnxruntime cannot run the ONNX file: {error}") from error
    return session, f"onnxruntime {onnxruntime.__version__}"


def _missing() -> MissingExtraError:
    return MissingExtraError(
        "ONNX files are run with onnxruntime, which is not installed: pip install 'distgrad[onnx]'"
    )


def tolerance_for(outputs: Sequence[Value], half: bool) -> float:
    """How far an output may be off, in units of its largest element or of 1."""
    if half:
        return _FLOATS["half"]
    return max((_FLOATS.get(value.dtype.name, 0.0) for value in outputs), default=0.0)


def examples(
    program: Program, inputs: Sequence[Input], batch: int, seed: int = 0
) -> list[np.ndarray]:
    """Random inputs: normal floats, integers within the tables that they index."""
    rng = np.random.default_rng((seed, batch))
    made = []
    for value, each in zip(program.inputs, inputs, strict=True):
        shape, rows = each.sized(batch), rows_of(program, value)
        array: np.ndarray
        if rows is not None:
            array = rng.integers(0, rows, shape)
        elif each.dtype.kind == "f":
            array = rng.normal(size=shape)
        elif each.dtype.kind == "b":
            array = rng.integers(0, 2, shape)
        else:
            array = rng.integers(0, 256 if each.dtype.itemsize == 1 else 10, shape)
        made.append(array.astype(each.dtype))
    return made


def rows_of(program: Program, source: Value) -> int | None:
    """The length of the shortest table that an input, as it is or cast, gives indices of."""
    same, lengths = {source}, []
    for instruction in program.instructions:
        assert isinstance(instruction, Apply)
        indices = instruction.inputs[-1]
        if instruction.name in ("take", "gather_rows") and indices in same:
            lengths.append(instruction.inputs[0].shape[instruction.params.get("axis", 0)])
        elif instruction.name in _CARRY and not same.isdisjoint(instruction.values):
            same.update(instruction.outputs)
    return min(lengths) if lengths else None


def compare(
    found: Sequence[Any], expected: Sequence[Any], names: Sequence[str], tolerance: float
) -> float:
    """The largest absolute difference.

    Raises ExportError where a shape or dtype differs, or an element by more than ``tolerance``
    times the largest of its output (or 1).
    """
    worst = 0.0
    for name, a, b in zip(names, found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            raise ExportError(
                f"the ONNX file gives {name!r} the shape {a.shape}, the model {b.shape}"
            )
        if not b.size:
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            raise ExportError(f"the ONNX file and the model differ in which {name!r} are finite")
        finite = np.isfinite(b)
        off = float(np.max(np.abs(a - b), where=finite, initial=0.0))
        scale = max(1.0, float(np.max(np.abs(b), where=finite, initial=0.0)))
        if off > tolerance * scale:
            raise ExportError(
                f"the ONNX file does not compute what the model does: {name!r} is off by {off:.3g} "
                f"(at most {tolerance * scale:.3g} is accepted); no file was written"
            )
        worst = max(worst, off)
    return worst


def quantized(content: bytes) -> bytes:
    """The same file with weights of 8 bits; what flows between them is quantized as it runs.

    Raises MissingExtraError without onnxruntime.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise _missing() from None
    log, level = logging.getLogger(), logging.getLogger().level
    log.setLevel(logging.ERROR)  # it advises to optimize first, which a session does by itself
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "model.onnx"), Path(folder, "int8.onnx")
            given.write_bytes(content)
            # Unsigned: convolutions on CPUs take no others.
            quantize_dynamic(given, made, weight_type=QuantType.QUInt8)
            return made.read_bytes()
    finally:
        log.setLevel(level)
