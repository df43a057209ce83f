"""A committed record was written by the executed notebook that is committed beside it, and by no earlier run."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parents[2] / "results" / "standard"


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def strangers(results: Path) -> list[str]:
    """Return the records whose run did not begin and end while the executed notebook of the same name ran."""
    found = []
    for path in sorted((results / "records").glob("*.json")):
        executed = results / "notebooks" / f"{path.stem}.ipynb"
        if not executed.is_file():
            continue
        run = json.loads(path.read_text(encoding="utf-8"))["run"]
        whole = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]
        times = [whole["start_time"], run["started"], run["ended"], whole["end_time"]]
        # Records keep whole seconds: a run that began within the notebook's first second may read as before it.
        opened, began, ended, closed = map(_time, times)
        if not opened.replace(microsecond=0) <= began <= ended <= closed:
            found.append(path.stem)
    return found


def test_committed_records_belong_to_the_committed_notebooks():
    assert strangers(RESULTS) == []


@pytest.mark.parametrize(("began", "ended", "belongs"), [
    ("2026-01-01T10:00:00+00:00", "2026-01-01T10:05:00+00:00", True),
    ("2026-01-01T09:59:59+00:00", "2026-01-01T10:05:00+00:00", False),
    ("2026-01-01T10:01:00+00:00", "2026-01-01T10:10:01+00:00", False),
])
def test_a_record_of_another_run_is_found(tmp_path, began, ended, belongs):
    for folder in ("records", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "records/10_toy--seed=0.json").write_text(json.dumps({"run": {"started": began, "ended": ended}}))
    times = {"start_time": "2026-01-01T10:00:00.5+00:00", "end_time": "2026-01-01T10:10:00+00:00"}
    (tmp_path / "notebooks/10_toy--seed=0.ipynb").write_text(json.dumps({"metadata": {"papermill": times}}))
    (tmp_path / "records/10_toy--seed=1.json").write_text("{}")
    assert strangers(tmp_path) == ([] if belongs else ["10_toy--seed=0"])
