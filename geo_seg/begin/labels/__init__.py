"""What labels hold: values of masks, attributes of polygons, legends, and the class table from them."""
