"""``tf.image``."""

from distgrad.ops.image import (
    adjust_brightness,
    adjust_contrast,
    convert_image_dtype,
    flip_left_right,
    flip_up_down,
    resize,
    rgb_to_grayscale,
    total_variation,
)

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "convert_image_dtype",
    "flip_left_right",
    "flip_up_down",
    "resize",
    "rgb_to_grayscale",
    "total_variation",
]
