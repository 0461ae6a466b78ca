"""Files that only this user can read, because tokens or command lines stand in them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path


def write_private(path: Path, content: dict[str, object]) -> None:
    """Write a JSON file that only this user can read, whole or not at all."""
    part = path.with_suffix(".part")
    with suppress(FileNotFoundError):
        part.unlink()
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    part.replace(path)
