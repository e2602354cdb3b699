"""What trivial models reach: independent pixels, k-means, PCA, densities of one variable."""
