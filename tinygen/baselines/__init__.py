"""Trivial models: independent pixels, k-means, PCA, densities of one variable."""
