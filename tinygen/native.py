"""The one place that calls kernels."""
from __future__ import annotations

def conv2d(*a): return NotImplemented
def conv_transpose2d(*a): return NotImplemented
def conv2d_weight(*a): return NotImplemented
