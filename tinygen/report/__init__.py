"""A run as a page: figures, curves, images."""
