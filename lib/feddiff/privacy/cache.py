"""Accounting results kept on disk, since a privacy-loss distribution can take seconds.

One small JSON file per result under `accounting/` of the folder in FEDDIFF_CACHE (default ~/.cache/feddiff), named by
the hash of everything that the result depends on. A file that cannot be read as exactly that is computed again.
"""

import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

_WORTH_KEEPING = 0.2  # seconds; below this, computing again costs less than a file


def folder() -> Path:
    """Return the folder of stored accounting results (it may not exist yet)."""
    return Path(os.environ.get("FEDDIFF_CACHE") or Path.home() / ".cache" / "feddiff") / "accounting"


def remembered(key: dict, compute: Callable[[], float]) -> float:
    """Return the number stored for `key` (JSON values), or compute it and store it if that took a noticeable time."""
    text = json.dumps(key, sort_keys=True)
    path = folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    stored = _read(path, json.loads(text))
    if stored is not None:
        return stored
    start = time.perf_counter()
    value = compute()
    if time.perf_counter() - start >= _WORTH_KEEPING:
        _write(path, {"key": json.loads(text), "value": value})
    return value


def _read(path: Path, key: dict) -> float | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return None
    if not isinstance(entry, dict) or entry.get("key") != key:
        return None
    value = entry.get("value")
    return value if isinstance(value, float) and value >= 0 else None


def _write(path: Path, entry: dict) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError as error:
        warnings.warn(
            f"accounting results are not kept: {path.parent} cannot be written ({error}); set FEDDIFF_CACHE to a "
            "folder that can",
            stacklevel=2,
        )
        return
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(entry, file)
    os.replace(name, path)
