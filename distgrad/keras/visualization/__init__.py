"""Pictures of what models see and say: boxes and masks on images, and galleries of them."""

from distgrad.core.later import later

_LATER = {
    "draw_bounding_boxes": ".marking",
    "draw_segmentation_masks": ".marking",
    "plot_bounding_box_gallery": ".gallery",
    "plot_image_gallery": ".gallery",
    "plot_segmentation_mask_gallery": ".gallery",
}
__all__ = [*_LATER]

__getattr__, __dir__ = later(__name__, globals(), _LATER)
