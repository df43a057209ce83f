"""Cache of trained runs: a run is trained again when, and only when, something that matters to it has changed.

An entry is one file: a line naming the format, a line of JSON (kind, key, SHA-256 of the rest, seconds of training),
then the state as written by torch.save and read with weights_only=True, so that loading executes no code.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter

import torch

from feddiff.experiments import files, scales, sources
from feddiff.experiments.records import clean

_FORMAT = b"feddiff run 1\n"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Cached:
    """A trained state, the seconds that its training took (when it was trained), and whether it came from the cache."""

    state: dict
    seconds: float
    hit: bool


def folder() -> Path:
    """Return FEDDIFF_CACHE, else .cache/runs of the checkout."""
    chosen = os.environ.get("FEDDIFF_CACHE")
    return Path(chosen).expanduser().resolve() if chosen else scales.checkout() / ".cache" / "runs"


def code_closure(modules: Iterable[str]) -> dict[str, str]:
    """Return module name -> source without comments and docstrings, for `modules` and all of feddiff they import."""
    modules = list(modules)
    found = sources.library(modules)
    for module in modules:
        if module not in found:
            raise ValueError(f"code names {module!r}, which is no module of feddiff (e.g. \"feddiff.systems.findiff\")")
    return found


def key(kind: str, config, data_sha: str, code: Iterable[str]) -> str:
    """Return the SHA-256 of everything that determines a run: code, configuration, data and the version of torch."""
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    if not isinstance(plain, Mapping):
        raise TypeError(f"config must be a dataclass or a dictionary, got {type(config).__name__}")
    if not isinstance(data_sha, str) or not data_sha:
        raise ValueError(f"data_sha must name the data (a SHA-256 and whatever selects rows), got {data_sha!r}")
    whole = {
        "kind": kind, "config": clean(dict(plain), "config"), "type": type(config).__name__, "data": data_sha,
        "torch": torch.__version__, "code": code_closure(code),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _plain(value, where: str) -> None:
    if isinstance(value, torch.Tensor) or value is None or isinstance(value, (bool, int, float, str)):
        return
    if isinstance(value, dict) and all(isinstance(name, (str, int)) for name in value):
        for name, item in value.items():
            _plain(item, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _plain(item, f"{where}[{index}]")
    else:
        raise TypeError(f"{where} has type {type(value).__name__}; a state holds tensors and plain JSON values only")


def _read(path: Path, kind: str, wanted: str) -> Cached | None:
    """Return the entry, or None with a warning that says what is wrong with it."""
    try:
        content = path.read_bytes()
        if not content.startswith(_FORMAT):
            raise ValueError("it was not written by this code")
        head, _, payload = content[len(_FORMAT):].partition(b"\n")
        header = json.loads(head)
        if (header["kind"], header["key"]) != (kind, wanted):
            raise ValueError("it belongs to another run")
        if hashlib.sha256(payload).hexdigest() != header["sha256"]:
            raise ValueError("its checksum is wrong")
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        return Cached(state=state, seconds=float(header["seconds"]), hit=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as fault:
        _log.warning("cache entry %s cannot be used (%s); training again", path.name, fault)
        return None


def cached(kind: str, config, data_sha: str, build: Callable[[], dict], *, code: Iterable[str]) -> Cached:
    """Return the state of the run (`kind`, `config`, `data_sha`, `code`), from the cache or from `build()`.

    `build` returns a dictionary of tensors and plain JSON values. Everything that changes the result (seed, clients,
    split, device) belongs into `config` or `data_sha`. A corrupt or foreign entry is trained again with a warning;
    FEDDIFF_FRESH=1 trains again in any case.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind):
        raise ValueError(f"kind must be lower case letters, digits, - and _, got {kind!r}")
    name = key(kind, config, data_sha, list(code))
    path = folder() / kind / f"{name}.run"
    if os.environ.get("FEDDIFF_FRESH", "") not in ("1", "true") and path.is_file():
        entry = _read(path, kind, name)
        if entry is not None:
            return entry
    begin = perf_counter()
    state = build()
    seconds = perf_counter() - begin
    if not isinstance(state, dict):
        raise TypeError(f"build() must return a dictionary, got {type(state).__name__}")
    _plain(state, "state")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    header = {"kind": kind, "key": name, "sha256": hashlib.sha256(payload).hexdigest(), "seconds": seconds}
    files.write_bytes(path, _FORMAT + json.dumps(header, sort_keys=True).encode() + b"\n" + payload)
    return Cached(state=state, seconds=seconds, hit=False)
