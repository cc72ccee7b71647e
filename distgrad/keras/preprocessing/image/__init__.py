"""Images as arrays and as files, and Keras's old way to change them at random while training.

New code has ``keras.utils.image_dataset_from_directory`` and layers such as ``RandomFlip``.
"""

from distgrad.core.later import later
from distgrad.keras.utils.images import array_to_img, img_to_array, load_img, save_img, smart_resize

_LATER = {
    "DirectoryIterator": ".files",
    "ImageDataGenerator": ".generator",
    "Iterator": ".iterator",
    "NumpyArrayIterator": ".iterator",
    "apply_affine_transform": ".transforms",
    "apply_brightness_shift": ".transforms",
    "apply_channel_shift": ".transforms",
    "random_brightness": ".transforms",
    "random_channel_shift": ".transforms",
    "random_rotation": ".transforms",
    "random_shear": ".transforms",
    "random_shift": ".transforms",
    "random_zoom": ".transforms",
}

__all__ = ["array_to_img", "img_to_array", "load_img", "save_img", "smart_resize", *_LATER]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
