"""Every error class of distgrad: the ones a TensorFlow user catches, and the ones that end a job.

An error that ends a job carries ``exit_code``; the command line prints its text, never a traceback.
"""

from __future__ import annotations


class OpError(Exception):
    """Base of the errors that operations raise (``tf.errors.OpError``).

    It takes a message; or a node, an operation and a message, of which there are the last alone.
    """

    error_code = 2  # unknown, in TensorFlow's numbers
    node_def = op = None

    def __init__(
        self, *args: object, node_def: object = None, op: object = None, message: object = None
    ) -> None:
        given = args if message is None else (message,)
        super().__init__(*(given[2:3] if len(given) > 2 else given))

    @property
    def message(self) -> str:
        return str(self)


class InvalidArgumentError(OpError, ValueError):
    """An operation was given shapes, dtypes or values it cannot take (``tf.errors``)."""


class SignatureError(InvalidArgumentError, TypeError):
    """An argument does not fit a function's signature: TensorFlow raises one or the other."""


class ScopeError(InvalidArgumentError, TypeError):
    """A tensor is used that a function made for itself: a TypeError, as in TensorFlow."""


class NotFoundError(OpError, FileNotFoundError):
    """A file or folder that was named is not there (``tf.errors``)."""


class NoValueError(ValueError, TypeError):
    """The value of a KerasTensor was asked for, which stands for an input that is to come."""


class NoCallError(NotImplementedError, ValueError):
    """A layer was called that has no ``call`` of its own: a NotImplementedError, as in Keras."""


class JobError(Exception):
    """An error that ends a job with one clear message and a documented exit code."""

    exit_code = 1


class UsageError(JobError):
    """The job cannot start as asked: a bad option, a folder in use, too many workers."""

    exit_code = 2


class MissingExtraError(JobError, ImportError):
    """An optional package is not installed; the message holds the exact ``pip install`` line."""

    exit_code = 3


class NoDeviceError(JobError, RuntimeError):
    """No GPU can be used here: none, an old driver, a broken CuPy; the message says what to do."""

    exit_code = 3


class DeviceMemoryError(JobError, MemoryError):
    """The memory of a GPU is used up; the message says what takes less of it."""


class DeviceLostError(JobError, RuntimeError):
    """A GPU answers no more (an Xid error, a reset, an unplugged device)."""

    exit_code = 3


class ExportError(JobError, ValueError):
    """A model cannot be written in the form asked for; the message names the layer and what to do.

    Also where what was written does not compute what the model does.
    """

    exit_code = 2


class DataError(JobError):
    """Data or a checkpoint cannot be read; the message names the file."""

    exit_code = 4


class DivergedError(JobError):
    """The loss is no longer a finite number; the last commit is kept."""

    exit_code = 5


class PeerLostError(JobError):
    """A peer died or froze; the message names its rank."""

    exit_code = 6


class OutOfStepError(PeerLostError):
    """The program makes other calls on one rank than on another, which a restart cannot mend."""

    exit_code = 1


class DesyncError(JobError):
    """The ranks do not hold the same variables any more; the message names what differs, where."""

    exit_code = 6


class PreemptedError(JobError):
    """The job was asked to stop, and has saved: start it again with ``--resume auto``."""

    exit_code = 75
