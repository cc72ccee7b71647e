"""``tf.io``: files, the images in them, and folders under ``gfile``."""

from __future__ import annotations

import glob as _glob
import os as _os
import shutil as _shutil
from types import SimpleNamespace as _SimpleNamespace
from typing import Any as _Any

from distgrad.image_files import (
    decode_and_crop_jpeg,
    decode_bmp,
    decode_gif,
    decode_image,
    decode_jpeg,
    decode_png,
    encode_jpeg,
    encode_png,
    extract_jpeg_shape,
    is_jpeg,
    read_file,
    write_file,
)

__all__ = [
    "decode_and_crop_jpeg",
    "decode_bmp",
    "decode_gif",
    "decode_image",
    "decode_jpeg",
    "decode_png",
    "encode_jpeg",
    "encode_png",
    "extract_jpeg_shape",
    "gfile",
    "is_jpeg",
    "read_file",
    "write_file",
]


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


def __getattr__(name: str) -> object:
    from distgrad.absent import message

    raise AttributeError(message(f"io.{name}"))
