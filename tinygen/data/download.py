"""One file from the network, kept only if it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


def download(url: str, path: Path, size: int, sha256: str) -> None:
    """Brings `url` to `path`, written aside and renamed once its SHA-256 is right: it is whole or not there.

    Raises OSError if the network or the disk fails, ValueError if other bytes come than those wanted.
    """
    import http.client  # here: these two take longer to import than the rest of tinygen.data
    import urllib.request

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        digest, received = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=TIMEOUT) as stream:
            while received < size and (piece := stream.read(CHUNK)):
                received += file.write(piece)
                digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            came = f"the checksum is wrong, {received} bytes came and {size} were wanted"
            raise ValueError(f"{url}: {came}; nothing was kept")
        os.replace(part, path)
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
