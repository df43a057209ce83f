"""Every test of this room writes into its own temporary folder, never into the checkout's results."""

import pandas as pd
import pytest

from feddiff.experiments import records


class FakeTable:
    """What a run notes of a data set."""

    name, sha256, source = "toy", "ab" * 32, "embedded"

    def __len__(self):
        return 7


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_RESULTS", str(tmp_path / "home"))
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDDIFF_FRESH", raising=False)
    return tmp_path / "home"


@pytest.fixture
def new_run():
    def build(notebook="10_findiff_privacy_budget", scale="standard", dataset="toy", seed=0, save=False, **settings):
        run = records.start(
            notebook=notebook, scale=scale, parameters={"dataset": dataset, "rounds": 3, **settings}, seed=seed
        )
        run.data(FakeTable())
        if save:
            run.metric("pair_trends", 0.9 + seed / 100, method="ours", epsilon="1")
            run.save()
        return run

    return build


@pytest.fixture
def toy():
    """A records frame: rows of (dataset, seed, name, value, labels)."""
    def build(rows, notebook="10_findiff_privacy_budget"):
        frame = pd.DataFrame(
            [
                {"dataset": dataset, "seed": seed, "name": name, "value": value, **labels,
                 "key": f"dataset={dataset},seed={seed}"}
                for dataset, seed, name, value, labels in rows
            ]
        )
        labels = [column for column in frame.columns if column not in ("dataset", "seed", "name", "value", "key")]
        frame[labels] = frame[labels].fillna("")
        return frame.assign(notebook=notebook, scale="standard", settings="s", reason="", timing=False)

    return build
