"""The folder where tinygen keeps what takes long to get or to make: data sets, compiled CUDA kernels."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """XDG_CACHE_HOME/tinygen, or ~/.cache/tinygen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "tinygen"
