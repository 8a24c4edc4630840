"""Built-in demo data set: a synthetic landscape, so that everything can be tried without a download."""

from geo_seg.data.demo.files import draw_demo

__all__ = ["draw_demo"]
