"""Writes what TensorFlow makes of images that are resized and moved: images.npz.

    python tests/reference/make_image_reference.py

It needs tensorflow; the tests do not. ``resize/METHOD/ANTIALIAS/HEIGHT/WIDTH`` are the results of
``tf.image.resize`` on ``resized``, ``warp/INTERPOLATION/FILL_MODE`` those of
ImageProjectiveTransformV3 on ``warped`` and ``maps``, filled with 0.7.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf

METHODS = ("bilinear", "bicubic", "area", "gaussian", "lanczos3", "lanczos5", "mitchellcubic")


def main() -> None:
    rng = np.random.default_rng(0)
    resized = rng.normal(size=(2, 7, 11, 2)).astype(np.float32)
    warped = rng.normal(size=(6, 5, 7, 2)).astype(np.float32)
    maps = (rng.normal(size=(6, 6)) * [1, 1, 8, 1, 1, 8]).astype(np.float32)
    maps[:2] = [1, 0, -9.3, 0, 1, 12.6], [1, 0, 30.2, 0, 1, -22.4]
    arrays = {"resized": resized, "warped": warped, "maps": maps}
    for method in (*METHODS, "nearest"):
        for antialias in (False, True):
            for size in ((3, 5), (13, 4), (9, 20)):
                name = f"resize/{method}/{antialias:d}/{size[0]}/{size[1]}"
                arrays[name] = tf.image.resize(resized, size, method, antialias=antialias).numpy()
    for interpolation in ("bilinear", "nearest"):
        for fill in ("constant", "nearest", "reflect", "wrap"):
            arrays[f"warp/{interpolation}/{fill}"] = tf.raw_ops.ImageProjectiveTransformV3(
                images=warped,
                transforms=np.pad(maps, ((0, 0), (0, 2))),
                output_shape=warped.shape[1:3],
                fill_value=0.7,
                interpolation=interpolation.upper(),
                fill_mode=fill.upper(),
            ).numpy()
    path = Path(__file__).parent / "images.npz"
    np.savez_compressed(path, about=np.array(tf.__version__), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
