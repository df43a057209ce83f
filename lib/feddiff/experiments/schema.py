"""What a record file must look like, checked when it is written and again whenever it is read."""

import json
import math
from pathlib import Path

SCHEMA = 1
# Columns that load_records makes itself.
LABELS_RESERVED = frozenset({"notebook", "scale", "key", "seed", "settings", "name", "value", "reason", "timing"})
_TOP = {
    "schema": int, "notebook": str, "scale": str, "key": str, "seed": int, "identity": dict, "parameters": dict,
    "settings_sha256": str, "data": list, "metrics": list, "timings": list, "privacy": list, "outside": list,
    "bytes_sent": (int, type(None)), "notes": list, "run": dict,
}
_PARTS = {
    "data": {"name": str, "sha256": str, "rows": int, "source": str},
    "metrics": {"name": str, "value": (int, float, type(None)), "labels": dict, "reason": (str, type(None))},
    "timings": {"name": str, "value": (int, float, type(None)), "labels": dict, "reason": (str, type(None))},
    "privacy": {"labels": dict, "statement": dict},
    "outside": {"labels": dict, "what": str},
}


class RecordError(ValueError):
    """A record file that cannot be trusted; the message names the file and the fault."""


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not allowed; a value is finite or null")


def _fields(entry, shape: dict, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object")
    missing, unknown = sorted(shape.keys() - entry.keys()), sorted(entry.keys() - shape.keys())
    if missing or unknown:
        raise ValueError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    for name, kind in shape.items():
        if not isinstance(entry[name], kind) or (isinstance(entry[name], bool) and kind is not bool):
            raise ValueError(f"{where}.{name} has type {type(entry[name]).__name__}")


def validate(record) -> None:
    """Raise ValueError with the fault unless `record` is a complete record of this schema."""
    _fields(record, _TOP, "record")
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']} is not {SCHEMA}, the one of this code; run the notebook again")
    for part, shape in _PARTS.items():
        for index, entry in enumerate(record[part]):
            _fields(entry, shape, f"{part}[{index}]")
            if not all(isinstance(text, str) for text in entry.get("labels", {}).values()):
                raise ValueError(f"{part}[{index}].labels must be texts")
    seen = set()
    for index, entry in enumerate([*record["metrics"], *record["timings"]]):
        value = entry["value"]
        if value is None and not entry["reason"]:
            raise ValueError(f"metric {entry['name']} is null without a reason")
        if value is not None and not math.isfinite(value):
            raise ValueError(f"metric {entry['name']} is {value}")
        if taken := LABELS_RESERVED & entry["labels"].keys():
            raise ValueError(f"metric {entry['name']} has the reserved labels {sorted(taken)}")
        place = (entry["name"], *sorted(entry["labels"].items()))
        if place in seen:
            raise ValueError(f"metric {entry['name']} appears twice with the labels {entry['labels']}")
        seen.add(place)
    if not record["metrics"] and not record["timings"]:
        raise ValueError("no metric")


def read(text: str, path: Path) -> dict:
    """Return the record in `text`; RecordError names the file `path` when it is corrupt, foreign or out of place."""
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
        validate(record)
        stem = f"{record['notebook']}--{record['key']}"
        if path.name != f"{stem}.json":
            raise ValueError(f"it holds the record {stem}")
        if path.parent.name == "records" and path.parent.parent.name != record["scale"]:
            raise ValueError(f"it holds a record of scale {record['scale']}")
    except ValueError as fault:
        raise RecordError(
            f"{path.parent.parent.name}/{path.parent.name}/{path.name} is not a usable record: {fault}. "
            "Delete the file and run its notebook again."
        ) from fault
    return record
