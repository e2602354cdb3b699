"""Diffusion and its relatives: networks that take noise out of images, step by step."""
