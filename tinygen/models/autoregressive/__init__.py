"""Autoregressive models: the probability of an image as a product over its values, each given those before it."""
