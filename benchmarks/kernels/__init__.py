"""The C kernels beside PyTorch: cases, contestants, and the same computed by PyTorch."""
