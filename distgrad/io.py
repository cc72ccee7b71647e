"""``tf.io``: files and folders under ``gfile``; what reads them is Python's or NumPy's."""

from __future__ import annotations

import glob as _glob
import os as _os
import shutil as _shutil
from types import SimpleNamespace as _SimpleNamespace
from typing import Any as _Any

__all__ = ["gfile"]

_IMAGES = "use tf.keras.utils.load_img and img_to_array, or image_dataset_from_directory"
_RECORDS = "keep arrays by numpy.savez, and read them by numpy.load"
_INSTEAD = {
    "FixedLenFeature": _RECORDS,
    "TFRecordWriter": _RECORDS,
    "decode_csv": "use pandas, or Python's csv",
    "decode_image": _IMAGES,
    "decode_jpeg": _IMAGES,
    "decode_png": _IMAGES,
    "decode_raw": "use numpy.frombuffer",
    "encode_jpeg": "use tf.keras.utils.save_img",
    "encode_png": "use tf.keras.utils.save_img",
    "parse_example": _RECORDS,
    "parse_single_example": _RECORDS,
    "parse_tensor": _RECORDS,
    "read_file": "use pathlib.Path(name).read_bytes(); of an image, tf.keras.utils.load_img",
    "serialize_tensor": _RECORDS,
    "write_file": "use pathlib.Path(name).write_bytes(...)",
}


def _copy(src: _Any, dst: _Any, overwrite: bool = False) -> None:
    if _os.path.exists(dst) and not overwrite:
        raise FileExistsError(f"{dst!r} exists: say overwrite=True")
    _shutil.copyfile(src, dst)


gfile = _SimpleNamespace(
    GFile=open,
    copy=_copy,
    exists=_os.path.exists,
    glob=lambda pattern: sorted(_glob.glob(_os.fspath(pattern))),
    isdir=_os.path.isdir,
    join=_os.path.join,
    listdir=_os.listdir,
    makedirs=lambda path: _os.makedirs(path, exist_ok=True),
    mkdir=_os.mkdir,
    remove=_os.remove,
    rename=lambda src, dst, overwrite=False: (_os.replace if overwrite else _os.rename)(src, dst),
    rmtree=_shutil.rmtree,
    stat=_os.stat,
    walk=_os.walk,
)


def __getattr__(name: str) -> _Any:
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message + (f": {_INSTEAD[name]}" if name in _INSTEAD else ""))
