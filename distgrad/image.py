"""``tf.image``."""

from distgrad.core.later import absent as _absent
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
)
from distgrad.jpeg_quality import (
    adjust_jpeg_quality,
    random_jpeg_quality,
    stateless_random_jpeg_quality,
)
from distgrad.ops.image import (
    ResizeMethod,
    adjust_brightness,
    adjust_contrast,
    convert_image_dtype,
    flip_left_right,
    flip_up_down,
    resize,
    rgb_to_grayscale,
    total_variation,
)
from distgrad.ops.images.boxes import (
    combined_non_max_suppression,
    draw_bounding_boxes,
    non_max_suppression,
    non_max_suppression_padded,
    non_max_suppression_with_scores,
)
from distgrad.ops.images.colour import (
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    grayscale_to_rgb,
    hsv_to_rgb,
    per_image_standardization,
    rgb_to_hsv,
    rgb_to_yiq,
    rgb_to_yuv,
    yiq_to_rgb,
    yuv_to_rgb,
)
from distgrad.ops.images.crops import (
    central_crop,
    crop_and_resize,
    crop_to_bounding_box,
    extract_patches,
    pad_to_bounding_box,
    resize_with_crop_or_pad,
    resize_with_pad,
    rot90,
    transpose,
)
from distgrad.ops.images.distorted import (
    sample_distorted_bounding_box,
    stateless_sample_distorted_bounding_box,
)
from distgrad.ops.images.quality import (
    image_gradients,
    psnr,
    sobel_edges,
    ssim,
    ssim_multiscale,
)
from distgrad.ops.images.random import (
    random_brightness,
    random_contrast,
    random_crop,
    random_flip_left_right,
    random_flip_up_down,
    random_hue,
    random_saturation,
    stateless_random_brightness,
    stateless_random_contrast,
    stateless_random_crop,
    stateless_random_flip_left_right,
    stateless_random_flip_up_down,
    stateless_random_hue,
    stateless_random_saturation,
)

__all__ = [name for name in dir() if not name.startswith("_")]


__getattr__ = _absent(__name__)
