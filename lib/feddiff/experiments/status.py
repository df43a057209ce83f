"""The status of a job: results/<scale>/status/<job>.json, written by the job itself, read by whoever schedules.

A job is up to date when its status says `ok`, the content key is the one of today's sources, and every record that it
wrote is still there. Modification times play no part.
"""

import json
from pathlib import Path

from feddiff.experiments import files, scales


def folder(scale: str) -> Path:
    """Return results/<scale>/status."""
    return scales.records_folder(scale).parent / "status"


def write(scale: str, job: str, content: dict) -> None:
    """Write the status of `job` atomically."""
    files.write_text(folder(scale) / f"{job}.json", json.dumps(content, indent=1, sort_keys=True) + "\n")


def read(scale: str, job: str) -> dict:
    """Return the status of `job`; {"outcome": "none"} when there is none or it is not whole."""
    path = folder(scale) / f"{job}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        # Nobody ran it, or a merge left conflict marks: both mean that it has to run.
        return {"outcome": "none"}
    return content if isinstance(content, dict) and "outcome" in content else {"outcome": "none"}


def up_to_date(scale: str, job: str, content_key: str) -> bool:
    """Say whether `job` ended well with this content, and its records are there."""
    found = read(scale, job)
    return (
        found["outcome"] == "ok"
        and found.get("content_key") == content_key
        and all((scales.records_folder(scale) / name).is_file() for name in found.get("records", []))
    )
