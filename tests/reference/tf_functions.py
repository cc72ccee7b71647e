"""Calls of TensorFlow's functions as text, for TensorFlow and for distgrad: ``tf`` is either.

``make_tf_reference.py`` keeps what TensorFlow makes of them. A name below that stands for floats
is watched by a tape: its gradient is that of a weighted sum of what the call gives.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

RNG = np.random.default_rng(7)


def _f(array: Any) -> np.ndarray:
    return np.asarray(array, np.float32)


SQUARE = RNG.normal(size=(3, 3))
INPUTS: dict[str, np.ndarray] = {
    "rgb": _f(RNG.uniform(0.05, 0.95, (2, 6, 5, 3))),
    "rgb2": _f(RNG.uniform(0.05, 0.95, (2, 6, 5, 3))),
    "one": _f(RNG.uniform(0.05, 0.95, (7, 4, 3))),
    "gray": _f(RNG.uniform(0.05, 0.95, (2, 6, 5, 1))),
    "hsv": _f(RNG.uniform(0.05, 0.95, (2, 4, 3, 3))),
    "bytes": RNG.integers(0, 256, (2, 6, 5, 3)).astype(np.uint8),
    "large": _f(RNG.uniform(0, 1, (2, 24, 20, 1))),
    "large2": _f(RNG.uniform(0, 1, (2, 24, 20, 1))),
    "boxes": _f([[0.1, 0.0, 0.8, 0.9], [0.2, 0.9, 0.9, 0.1], [-0.2, 0.1, 0.5, 1.3]]),
    "detections": _f(np.sort(RNG.uniform(0, 1, (12, 2, 2)), axis=1).reshape(12, 4)),
    "scores": _f(RNG.uniform(0, 1, 12)),
    "x": _f(RNG.normal(size=(3, 4))),
    "y": _f(RNG.normal(size=(3, 4))),
    "p": _f(RNG.uniform(0.2, 3.0, (3, 4))),
    "q": _f(RNG.uniform(0.2, 3.0, (3, 4))),
    "u": _f(RNG.uniform(0.1, 0.9, (3, 4))),
    "v": _f(RNG.normal(size=4)),
    "signal": _f(RNG.normal(size=(2, 40))),
    "z": (RNG.normal(size=(2, 3, 4)) + 1j * RNG.normal(size=(2, 3, 4))).astype(np.complex64),
    "volume": _f(RNG.normal(size=(2, 4, 4, 8))),
    "square": _f(SQUARE),
    "squares": _f(RNG.normal(size=(2, 3, 3)) + 3 * np.eye(3)),
    "positive": _f(SQUARE @ SQUARE.T + np.eye(3)),
    "columns": _f(RNG.normal(size=(2, 3, 2))),
    "i": RNG.integers(0, 4, (3, 4)).astype(np.int32),
    "j": RNG.integers(0, 4, (3, 4)).astype(np.int32),
    "words": np.array([[1, 2], [2, 2], [3, 0]], np.int32),
    "places": _f(RNG.uniform(-1.4, 3.4, (2, 6))),
    "maps": np.array(
        [[1.1, 0.2, -0.7, -0.1, 0.9, 0.4, 0.01, -0.02], [0.8, -0.3, 1.2, 0.3, 1.0, -1.1, 0.0, 0.0]]
    ),
    "corners": np.array([[[0, 0], [4, 0], [0, 5], [4, 5]], [[0, 0], [4, 0], [0, 5], [4, 5]]]),
    "moved": np.array([[[1, 0], [4, 1], [0, 4], [3, 5]], [[0, 1], [3, 0], [1, 5], [4, 4]]]),
    "pair": _f([1.3, 0.7]),
    "bools": RNG.integers(0, 2, (3, 4)).astype(bool),
    "logits": _f(RNG.normal(size=(6, 3, 5))),
}  # fmt: skip


def evaluate(tf: Any, call: str, gradients: bool = True) -> dict[str, np.ndarray]:
    """What the call gives, ``out/0``, ..., and the gradients of its inputs, ``grad/NAME``."""
    names = [name for name in INPUTS if re.search(rf"(?<![\w.]){name}\b(?!=)", call)]
    values = {name: tf.constant(INPUTS[name]) for name in names}
    floats = [name for name in names if INPUTS[name].dtype.kind in "fc"]
    with tf.GradientTape() as tape:
        tape.watch([values[name] for name in floats])
        made = eval(call, {"tf": tf, "np": np}, values)
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        made = [tf.convert_to_tensor(each) for each in made]
        losses = []
        for each in made if gradients else []:
            if each.dtype in (tf.float32, tf.complex64):
                weights = np.cos(np.arange(np.prod(each.shape, dtype=int))).reshape(each.shape)
                if each.dtype == tf.complex64:
                    each = tf.math.real(each) + 0.5 * tf.math.imag(each)
                losses.append(tf.reduce_sum(each * weights.astype(np.float32)))
        loss = tf.add_n(losses) if losses else None
    found = {f"out/{k}": np.asarray(each) for k, each in enumerate(made)}
    if loss is not None:
        for name, grad in zip(
            floats, tape.gradient(loss, [values[n] for n in floats]), strict=True
        ):
            if grad is not None:
                found[f"grad/{name}"] = np.asarray(tf.convert_to_tensor(grad))
    return found


def calls(text: str) -> list[str]:
    whole = re.sub(r"\s*\\\n\s*", " ", text)  # a line that ends in a backslash goes on
    return [line.strip() for line in whole.strip().splitlines() if line.strip()]


IMAGE = calls("""
    tf.image.adjust_gamma(rgb, 1.7, 0.9)
    tf.image.adjust_gamma(bytes, 0.5)
    tf.image.adjust_hue(rgb, 0.2)
    tf.image.adjust_hue(rgb, -0.37)
    tf.image.adjust_hue(bytes, 0.1)
    tf.image.adjust_saturation(rgb, 0.4)
    tf.image.adjust_saturation(rgb, 2.5)
    tf.image.adjust_saturation(bytes, 1.5)
    tf.image.central_crop(rgb, 0.5)
    tf.image.central_crop(one, 0.3)
    tf.image.central_crop(one, 1.0)
    tf.image.crop_to_bounding_box(rgb, 1, 2, 3, 2)
    tf.image.pad_to_bounding_box(one, 1, 2, 12, 9)
    tf.image.resize_with_crop_or_pad(rgb, 4, 9)
    tf.image.resize_with_crop_or_pad(one, 9, 3)
    tf.image.resize_with_crop_or_pad(bytes, 3, 3)
    tf.image.resize_with_pad(rgb, 8, 8)
    tf.image.resize_with_pad(one, 5, 9, method='nearest')
    tf.image.crop_and_resize(rgb, boxes, [0, 1, 1], [4, 3])
    tf.image.crop_and_resize(rgb, boxes, [0, 1, 1], [1, 3], extrapolation_value=0.5)
    tf.image.crop_and_resize(bytes, boxes, [0, 1, 1], [4, 3], method='nearest')
    tf.image.resize(rgb, [3, 4], tf.image.ResizeMethod.BILINEAR)
    tf.image.resize(rgb, [3, 4], tf.image.ResizeMethod.NEAREST_NEIGHBOR)
    tf.image.rot90(rgb)
    tf.image.rot90(one, 2)
    tf.image.rot90(one, 3)
    tf.image.transpose(rgb)
    tf.image.transpose(one)
    tf.image.rgb_to_hsv(rgb)
    tf.image.hsv_to_rgb(hsv)
    tf.image.grayscale_to_rgb(gray)
    tf.image.rgb_to_yuv(rgb)
    tf.image.yuv_to_rgb(rgb)
    tf.image.rgb_to_yiq(rgb)
    tf.image.yiq_to_rgb(rgb)
    tf.image.per_image_standardization(rgb)
    tf.image.per_image_standardization(bytes)
    tf.image.psnr(rgb, rgb2, 1.0)
    tf.image.psnr(bytes, bytes[::-1], 255)
    tf.image.ssim(large, large2, 1.0)
    tf.image.ssim(large, large2, 1.0, filter_size=5, filter_sigma=1.0, k1=0.02, k2=0.05)
    tf.image.ssim(large, large2, 1.0, return_index_map=True)
    tf.image.ssim_multiscale(large, large2, 1.0, power_factors=(0.4, 0.6), filter_size=5)
    tf.image.sobel_edges(rgb)
    tf.image.image_gradients(rgb)
    tf.image.extract_patches(rgb, [1, 3, 2, 1], [1, 2, 1, 1], [1, 1, 1, 1], 'VALID')
    tf.image.extract_patches(rgb, [1, 3, 2, 1], [1, 2, 1, 1], [1, 2, 2, 1], 'SAME')
    tf.image.non_max_suppression(detections, scores, 5)
    tf.image.non_max_suppression(detections, scores, 12, 0.2, 0.1)
    tf.image.non_max_suppression_with_scores(detections, scores, 12, 0.3, 0.1, 0.5)
    tf.image.non_max_suppression_with_scores(detections, scores, 12, 1.0, 0.2, 0.4)
    tf.image.total_variation(rgb)
""")

NN = calls("""
    tf.nn.bias_add(rgb, [0.5, -1.0, 2.0])
    tf.nn.bias_add(rgb, tf.constant([0.5, -1.0, 2.0, 1.0, 0.0, 3.0]), data_format='NCHW')
    tf.nn.bias_add(x, v)
    tf.nn.space_to_depth(volume, 2)
    tf.nn.depth_to_space(volume, 2)
    tf.nn.space_to_batch(volume, [2, 3], [[0, 0], [1, 1]])
    tf.space_to_batch(volume, [2, 2], [[0, 0], [0, 0]])
    tf.batch_to_space(tf.space_to_batch(volume, [2, 3], [[0, 2], [1, 1]]), [2, 3], [[0, 2], [1, 1]])
    tf.batch_to_space(tf.concat([volume, volume], 0), [2, 2], [[0, 1], [2, 0]])
    tf.required_space_to_batch_paddings([5, 7], [2, 3])
    tf.nn.local_response_normalization(volume)
    tf.nn.lrn(volume, depth_radius=2, bias=1.5, alpha=0.3, beta=0.75)
    tf.nn.max_pool_with_argmax(volume, 2, 2, 'VALID')
    tf.nn.max_pool_with_argmax(volume, [3, 2], [2, 1], 'SAME', 'NHWC', tf.int32, True)
    tf.nn.pool(volume, [2, 2], 'MAX')
    tf.nn.pool(volume, [2, 2], 'AVG', strides=[2, 1], padding='SAME')
    tf.nn.pool(volume, [2, 2], 'MAX', dilations=[2, 2])
    tf.nn.weighted_moments(x, [0], p)
    tf.nn.weighted_moments(x, [1], v, keepdims=True)
    tf.nn.sufficient_statistics(x, [0])[:3]
    tf.nn.sufficient_statistics(x, [0, 1], shift=0.5, keepdims=True)
    tf.nn.normalize_moments(tf.constant(5.0), x, p, None)
    tf.nn.normalize_moments(tf.constant(5.0), x, p, y)
    tf.nn.zero_fraction([0.0, 1.0, 0.0, 2.0])
    tf.nn.dilation2d(volume, volume[0, :3, :2], [1, 1, 1, 1], 'SAME', 'NHWC', [1, 1, 1, 1])
    tf.nn.dilation2d(volume, volume[0, :2, :2], [1, 2, 1, 1], 'VALID', 'NHWC', [1, 2, 1, 1])
    tf.nn.erosion2d(volume, volume[0, :3, :2], [1, 1, 1, 1], 'SAME', 'NHWC', [1, 1, 1, 1])
    tf.nn.ctc_loss(words, logits, [2, 2, 1], [6, 5, 6])
    tf.nn.ctc_loss(words, logits, [2, 2, 1], [6, 5, 6], blank_index=-1)
    tf.nn.ctc_loss(words[:1], logits[:1], [2], [3], logits_time_major=False)
""")

MATH = calls("""
    tf.math.confusion_matrix([1, 2, 4], [2, 2, 4])
    tf.math.confusion_matrix([1, 2, 4, 2], [2, 2, 4, 2], 6, v, tf.float32)
    tf.math.bessel_i0(x)
    tf.math.bessel_i0e(x)
    tf.math.bessel_i1(x)
    tf.math.bessel_i1e(x)
    tf.math.bessel_i1([0.0, 1.0])
    tf.math.igamma(2.5, p)
    tf.math.igammac(2.5, p)
    tf.math.betainc(2.5, 1.5, u)
    tf.math.lbeta(p)
    tf.math.zero_fraction(i)
    tf.math.is_non_decreasing([1, 1, 3])
    tf.math.is_non_decreasing([1, 3, 2])
    tf.math.is_strictly_increasing([1, 1, 3])
    tf.math.is_strictly_increasing([1, 2, 3])
""")

LINALG = calls("""
    tf.linalg.normalize(x)
    tf.linalg.normalize(x, ord=1, axis=1)
    tf.linalg.normalize(squares, axis=[-2, -1])
    tf.linalg.lu(square)
    tf.linalg.lu(squares)
    tf.linalg.lu_solve(*tf.linalg.lu(squares), columns)
    tf.linalg.lu_reconstruct(*tf.linalg.lu(squares))
    tf.linalg.lu_matrix_inverse(*tf.linalg.lu(squares))
    tf.sort(tf.math.real(tf.linalg.eigvals(square)))
    tf.linalg.sqrtm(positive)
    tf.linalg.sqrtm(squares)
    tf.math.real(tf.linalg.logm(tf.cast(positive, tf.complex64)))
    tf.linalg.tridiagonal_solve(squares, columns)
    tf.linalg.tridiagonal_solve(squares, columns[..., 0])
    tf.linalg.tridiagonal_solve(tf.unstack(squares, axis=1), columns, 'sequence')
    tf.linalg.tridiagonal_solve(squares, columns, 'matrix')
    tf.linalg.tridiagonal_matmul(squares, columns)
    tf.linalg.tridiagonal_matmul(squares, columns, 'matrix')
""")

SIGNAL = calls("""
    tf.signal.fft(z)
    tf.signal.ifft(z)
    tf.signal.fft2d(z)
    tf.signal.ifft2d(z)
    tf.signal.fft3d(z)
    tf.signal.ifft3d(z)
    tf.signal.rfft(signal)
    tf.signal.rfft(signal, [33])
    tf.signal.rfft(signal, [64])
    tf.signal.irfft(z)
    tf.signal.irfft(z, [7])
    tf.signal.irfft(z, [10])
    tf.signal.rfft2d(squares)
    tf.signal.rfft2d(squares, [4, 4])
    tf.signal.irfft2d(z)
    tf.signal.irfft2d(z, [3, 5])
    tf.signal.rfft3d(squares)
    tf.signal.irfft3d(z)
    tf.signal.fftshift(x)
    tf.signal.ifftshift(x, [1])
    tf.signal.frame(signal, 8, 3)
    tf.signal.frame(signal, 8, 3, pad_end=True, pad_value=1.0)
    tf.signal.frame(signal, 2, 1, axis=0)
    tf.signal.overlap_and_add(squares, 2)
    tf.signal.stft(signal, 12, 5)
    tf.signal.stft(signal, 12, 5, fft_length=20, window_fn=tf.signal.hamming_window, pad_end=True)
    tf.signal.stft(signal, 8, 4, window_fn=None)
    tf.signal.inverse_stft(z, 6, 3, window_fn=tf.signal.inverse_stft_window_fn(3))
    tf.signal.inverse_stft(z, 6, 2)
    tf.signal.hann_window(9)
    tf.signal.hann_window(8)
    tf.signal.hann_window(8, periodic=False)
    tf.signal.hamming_window(7)
    tf.signal.kaiser_window(7, 5.0)
    tf.signal.kaiser_bessel_derived_window(8)
    tf.signal.vorbis_window(8)
    tf.signal.dct(x, 1)
    tf.signal.dct(x)
    tf.signal.dct(x, 2, norm='ortho')
    tf.signal.dct(x, 2, n=6)
    tf.signal.dct(x, 2, n=3)
    tf.signal.dct(x, 3)
    tf.signal.dct(x, 3, norm='ortho')
    tf.signal.dct(x, 4)
    tf.signal.dct(x, 4, norm='ortho')
    tf.signal.idct(x)
    tf.signal.idct(x, norm='ortho')
    tf.signal.linear_to_mel_weight_matrix()
    tf.signal.linear_to_mel_weight_matrix(10, 65, 16000, 80.0, 7600.0)
    tf.signal.mfccs_from_log_mel_spectrograms(x)
""")

REST = calls("""
    tf.reverse_sequence(volume, [2, 4], seq_axis=1, batch_axis=0)
    tf.reverse_sequence(x, [1, 3, 2, 0], seq_axis=0, batch_axis=1)
    tf.bitcast(x, tf.int32)
    tf.bitcast(x, tf.uint8)
    tf.bitcast(tf.constant([[1, 2], [3, 4]]), tf.int64)
    tf.unravel_index([0, 5, 11], [3, 4])
    tf.unravel_index(7, [2, 2, 3])
    tf.broadcast_dynamic_shape([3, 1], [1, 4])
    tf.bitwise.bitwise_and(i, j)
    tf.bitwise.bitwise_or(i, j)
    tf.bitwise.bitwise_xor(i, j)
    tf.bitwise.invert(i)
    tf.bitwise.left_shift(i, j)
    tf.bitwise.right_shift(i * 100, j)
""")

KERAS = calls(r"""
    tf.keras.ops.image.rgb_to_grayscale(rgb)
    tf.keras.ops.image.rgb_to_grayscale(bytes)
    tf.keras.ops.image.rgb_to_grayscale(one)
    tf.keras.ops.image.rgb_to_hsv(rgb)
    tf.keras.ops.image.hsv_to_rgb(hsv)
    tf.keras.ops.image.hsv_to_rgb(tf.transpose(hsv, [0, 3, 1, 2]), data_format='channels_first')
    tf.keras.ops.image.resize(rgb, (4, 7))
    tf.keras.ops.image.resize(one, (4, 7), interpolation='nearest')
    tf.keras.ops.image.resize(rgb, (4, 7), crop_to_aspect_ratio=True)
    tf.keras.ops.image.resize(rgb, (4, 7), pad_to_aspect_ratio=True, fill_value=0.5)
    tf.keras.ops.image.resize(rgb, (4, 7), data_format='channels_first')
    tf.keras.ops.image.pad_images(rgb, 1, 2, 3, 0)
    tf.keras.ops.image.pad_images(one, 1, 2, target_height=9, target_width=7)
    tf.keras.ops.image.crop_images(rgb, 1, 2, 1, 0)
    tf.keras.ops.image.crop_images(one, bottom_cropping=1, left_cropping=1, \
        target_height=4, target_width=2)
    tf.keras.ops.image.extract_patches(rgb, 2)
    tf.keras.ops.image.extract_patches(one, (3, 2), strides=1, padding='same')
    tf.keras.ops.image.extract_patches(rgb, 2, strides=1, dilation_rate=2)
    tf.keras.ops.image.extract_patches_3d(volume[..., None], 2)
    tf.keras.ops.image.extract_patches(volume[..., None], (2, 3, 2), strides=(1, 1, 2))
    tf.keras.ops.image.gaussian_blur(rgb, (3, 5), (1.0, 2.0))
    tf.keras.ops.image.sobel_edges(rgb)
    tf.keras.ops.image.ssim(large, large2)
    tf.keras.ops.image.map_coordinates(x, places, 1)
    tf.keras.ops.image.map_coordinates(x, places, 0)
    tf.keras.ops.image.map_coordinates(x, places, 1, 'constant', 2.0)
    tf.keras.ops.image.map_coordinates(x, places, 1, 'nearest')
    tf.keras.ops.image.map_coordinates(x, places, 1, 'wrap')
    tf.keras.ops.image.map_coordinates(x, places, 1, 'mirror')
    tf.keras.ops.image.map_coordinates(x, places, 1, 'reflect')
    tf.keras.ops.image.affine_transform(rgb, maps)
    tf.keras.ops.image.affine_transform(rgb, maps, 'nearest', 'reflect')
    tf.keras.ops.image.affine_transform(one, maps[0], 'bilinear', 'wrap')
    tf.keras.ops.image.affine_transform(rgb, maps, 'bilinear', 'nearest')
    tf.keras.ops.image.affine_transform(rgb, maps, fill_value=0.7)
    tf.keras.ops.image.affine_transform(bytes, maps, fill_value=9)
    tf.keras.ops.image.perspective_transform(rgb, corners, moved)
    tf.keras.ops.image.perspective_transform(one, corners[0], moved[0], 'nearest', 0.5)
    tf.keras.ops.image.scale_and_translate(x, (5, 4), pair, pair * 0.3, (0, 1), 'linear')
    tf.keras.ops.image.scale_and_translate(x, (5, 4), pair, pair * 0.3, (0, 1), 'cubic')
    tf.keras.ops.image.scale_and_translate(x, (5, 4), pair, pair, (0, 1), 'lanczos3', False)
""")

ALL = [*IMAGE, *NN, *MATH, *LINALG, *SIGNAL, *REST, *KERAS]
# Calls whose gradients are not compared, and those that are compared less closely.
WITHOUT_GRADIENTS = frozenset(
    [
        "tf.image.crop_and_resize(bytes, boxes, [0, 1, 1], [4, 3], method='nearest')",
        "tf.sort(tf.math.real(tf.linalg.eigvals(square)))",  # which has none here
        # TensorFlow moves the gradient back by the inverse map, which is not the derivative.
        *(call for call in KERAS if "affine_transform" in call or "perspective" in call),
    ]
)
TOLERANCES: dict[str, float] = {}
