"""Files of records: TensorFlow's TFRecords, and records of one length.

In a TFRecord file each record has before it its length (8 bytes) and the checksum of that (4), and
after it the checksum of its bytes (4).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, Self

from distgrad.core.errors import InvalidArgumentError, NotFoundError, OpError
from distgrad.core.files import temporary
from distgrad.core.op_errors import DataLossError, FailedPreconditionError
from distgrad.core.texts import as_bytes
from distgrad.data.checksum import masked
from distgrad.data.dataset import Dataset
from distgrad.data.files import KINDS, names_of, of_files, opened

_HEAD = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


class TFRecordOptions:
    """How records are packed: "GZIP", "ZLIB" or not at all ("", None), and how tightly (0 to 9).

    The sizes of buffers and of zlib's windows change nothing. Raises ValueError for another kind.
    """

    def __init__(
        self,
        compression_type: Any = None,
        flush_mode: int | None = None,
        input_buffer_size: int | None = None,
        output_buffer_size: int | None = None,
        window_bits: int | None = None,
        compression_level: int | None = None,
        compression_method: int | None = None,
        mem_level: int | None = None,
        compression_strategy: int | None = None,
    ) -> None:
        kind = getattr(compression_type, "compression_type", compression_type)
        if kind not in KINDS:
            raise ValueError(f'Not a valid compression_type: "{kind}"')
        self.compression_type = kind
        self.compression_level = compression_level


class TFRecordWriter:
    """Writes records to a file, in place of what it had. A context manager that closes it.

    The file is there from the first ``flush`` on, or from ``close``, so that several processes may
    write the same one and read it. ``options`` are `TFRecordOptions`, or their compression type.
    Raises ValueError for another, and NotFoundError where the folder is not there.
    """

    _file: Any = None

    def __init__(self, path: Any, options: Any = None) -> None:
        if not isinstance(options, TFRecordOptions):
            options = TFRecordOptions(options)
        (name,) = names_of(path)
        self._path = Path(os.path.realpath(name))
        plain = self._path.is_file() or not self._path.exists()  # no pipe or device
        self._work = temporary(self._path) if plain else self._path
        self._packer: Any = None
        if options.compression_type:
            bits = 31 if options.compression_type == "GZIP" else 15
            level = options.compression_level
            self._packer = zlib.compressobj(-1 if level is None else level, wbits=bits)
        try:
            self._file = open(self._work, "wb")  # noqa: SIM115 (closed by close)
        except FileNotFoundError:
            raise NotFoundError(f"{name}; No such file or directory") from None

    def write(self, record: bytes | str) -> None:
        """Adds a record: bytes, or a str in UTF-8.

        Raises FailedPreconditionError after ``close``, TypeError for anything else.
        """
        data = record.encode() if isinstance(record, str) else record
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(
                f"a record is bytes, not a {type(record).__name__}: use its numpy() or "
                "SerializeToString()"
            )
        length = _LENGTH.pack(len(data))
        self._put(length, _CHECKSUM.pack(masked(length)), data, _CHECKSUM.pack(masked(data)))

    def _put(self, *parts: bytes) -> None:
        if self._file.closed:
            raise FailedPreconditionError("Writer is closed.")
        whole = b"".join(parts)
        self._file.write(whole if self._packer is None else self._packer.compress(whole))

    def flush(self) -> None:
        """Hands what was written to the system. Raises FailedPreconditionError after ``close``."""
        self._put()
        if self._packer is not None:
            self._file.write(self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()
        self._show()

    def close(self) -> None:
        """Ends the file; nothing can be written any more."""
        if self._packer is not None and not self._file.closed:
            self._file.write(self._packer.flush())
        self._file.close()
        self._show()

    def _show(self) -> None:
        if self._work != self._path:
            os.replace(self._work, self._path)
            self._work = self._path

    def __del__(self) -> None:
        if self._file is not None:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class DatasetWriter:
    """``tf.data.experimental.TFRecordWriter``: writes the elements of a dataset as records."""

    def __init__(self, filename: Any, compression_type: str | None = None) -> None:
        self._given = filename, compression_type

    def write(self, dataset: Dataset) -> None:
        """Writes all elements, texts or bytes. Raises TypeError for others."""
        with TFRecordWriter(*self._given) as writer:
            for element in dataset:
                try:
                    writer.write(as_bytes(element).item())
                except ValueError:
                    raise TypeError(f"an element is one text, or bytes, not {element!r}") from None


def TFRecordDataset(
    filenames: Any,
    compression_type: str | None = None,
    buffer_size: int | None = None,
    num_parallel_reads: int | None = None,
    name: str | None = None,
) -> Dataset:
    """The records of TFRecord files as bytes, one file after the other.

    ``filenames`` is one, a list or a dataset of them; ``compression_type`` is None, "GZIP" or
    "ZLIB"; with ``num_parallel_reads`` so many files are read in turns, one record of each;
    ``buffer_size`` changes nothing. Raises, as it is read, NotFoundError for a file that is not
    there, DataLossError for one that is damaged or cut off, which names the file and the place.
    """
    return of_files(
        filenames,
        lambda path: _Records(path, compression_type),
        num_parallel_reads,
        as_bytes(b""),
    )


def FixedLengthRecordDataset(
    filenames: Any,
    record_bytes: int,
    header_bytes: int | None = None,
    footer_bytes: int | None = None,
    buffer_size: int | None = None,
    compression_type: str | None = None,
    num_parallel_reads: int | None = None,
    name: str | None = None,
) -> Dataset:
    """Bytes of one length each, as they lie in files between a header and a footer.

    The rest is as for `TFRecordDataset`. Raises InvalidArgumentError, as it is read, for a file
    that holds no whole number of records.
    """
    size, header, footer = int(record_bytes), int(header_bytes or 0), int(footer_bytes or 0)
    if size < 1 or header < 0 or footer < 0:
        raise InvalidArgumentError(
            f"records have 1 byte or more, headers and footers 0 or more; not {size}, {header} "
            f"and {footer}"
        )

    def records(path: str) -> Iterator[Any]:
        with opened(path, compression_type) as file:
            body = file.seek(0, 2) - header - footer
            if body < 0 or body % size:
                raise InvalidArgumentError(
                    f"{path} has {body} bytes without the header ({header}) and the footer "
                    f"({footer}), which are no whole number of records of {size}"
                )
            file.seek(header)
            for _ in range(body // size):
                yield as_bytes(file.read(size))

    return of_files(filenames, records, num_parallel_reads, as_bytes(b""))


class _Records:
    """The records of a file. After an error there are no more, but those of other files may come:
    so an error looks as if no generator had ended, which `Dataset.ignore_errors` asks."""

    def __init__(self, path: str, compression_type: str | None) -> None:
        self._records = _records(path, compression_type)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._records)
        except OpError as error:
            raise error.with_traceback(None) from None


def _records(path: str, compression_type: str | None) -> Iterator[Any]:
    place = 0
    try:
        with opened(path, compression_type) as file:
            while head := file.read(12):
                if len(head) < 12:
                    raise EOFError
                length, checksum = _HEAD.unpack(head)
                if masked(head[:8]) != checksum:
                    raise _damaged(path, "corrupted record", place, " (is it a TFRecord file?)")
                data, tail = file.read(length), file.read(4)
                if len(tail) < 4:
                    raise EOFError
                if masked(data) != _CHECKSUM.unpack(tail)[0]:
                    raise _damaged(path, "corrupted record", place + 12)
                yield as_bytes(data)
                place += length + 16
    except EOFError:
        raise _damaged(path, "truncated record", place) from None
    except (zlib.error, BadGzipFile) as error:
        raise _damaged(path, "corrupted record", place, f": {error}") from None


def _damaged(path: str, what: str, place: int, more: str = "") -> DataLossError:
    return DataLossError(f"{path}: {what} at {place}{more}")
