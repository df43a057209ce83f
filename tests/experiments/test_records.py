"""Records: round trip, validation, atomic writes, scales that never mix."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from feddiff.experiments import files, provenance, records, scales
from feddiff.experiments.frames import privacy_table, read_records
from feddiff.experiments.schema import RecordError

STATEMENT = {
    "unit": "record", "adjacency": "add-remove", "sampling": "Poisson", "delta": 1e-5, "accountant": "pld",
    "epsilon": math.inf,
    "outside": ["quantiles of pooled rows"],
}


def test_round_trip_in_long_form(new_run):
    run = new_run(seed=3)
    run.metric("column_shapes", np.float64(0.1) + 0.2, method="ours", epsilon=1.0)
    run.metric("roc_auc", None, reason="one class only", method="majority")
    run.metric("train_seconds", 1.5, method="ours")
    run.bytes_sent = 12
    path = run.save()
    assert path.name == "10_findiff_privacy_budget--dataset=toy,seed=3.json"
    frame = records.load_records("10_findiff_privacy_budget", "standard")
    shapes = frame[frame["name"] == "column_shapes"].iloc[0]
    assert shapes["value"] == 0.1 + 0.2
    assert (shapes["dataset"], shapes["seed"], shapes["epsilon"], shapes["method"]) == ("toy", 3, "1", "ours")
    assert shapes["parameters.rounds"] == 3
    missing = frame[frame["name"] == "roc_auc"].iloc[0]
    assert math.isnan(missing["value"]) and missing["reason"] == "one class only" and missing["epsilon"] == ""
    assert list(frame.loc[frame["timing"], "name"]) == ["train_seconds"]


def test_provenance_is_complete_and_names_no_place(new_run, home):
    run = new_run(data_file="/somewhere/private/table.csv")
    run.metric("pair_trends", 0.5)
    text = run.save().read_text()
    record = json.loads(text)
    assert record["parameters"]["data_file"] == "table.csv"
    assert record["data"] == [{"name": "toy", "sha256": "ab" * 32, "rows": 7, "source": "embedded"}]
    block = record["run"]
    assert set(block) == {
        "code", "versions", "python", "platform", "device", "threads", "started", "ended", "seconds",
        "peak_memory_bytes",
    }
    assert block["peak_memory_bytes"] > 10_000_000 and block["versions"]["torch"]
    for private in (str(home), os.uname().nodename, "/somewhere"):
        assert private not in text


def test_two_runs_differ_only_in_the_run_block(new_run):
    kept = []
    for _ in range(2):
        run = new_run()
        run.metric("pair_trends", 0.5, method="ours")
        run.privacy(STATEMENT, method="ours")
        record = json.loads(run.save().read_text())
        kept.append({name: value for name, value in record.items() if name not in ("run", "timings")})
    assert kept[0] == kept[1]


def test_infinite_epsilon_survives_and_what_is_outside_is_shown(new_run):
    run = new_run()
    run.metric("pair_trends", 0.5)
    run.privacy(STATEMENT, method="ours", epsilon="inf")
    run.outside("label counts", method="ours")
    run.save()
    table = privacy_table(read_records("10_findiff_privacy_budget", "standard"))
    assert table["spent"].tolist() == [math.inf]
    assert table.loc[0, ["unit", "adjacency", "sampling", "accountant", "delta"]].tolist() == ["record"] + ["–"] * 4
    assert table["outside"].tolist() == ["label counts; quantiles of pooled rows"]
    run.privacy(STATEMENT | {"epsilon": 1.0}, method="ours", epsilon="1")
    run.save()
    table = privacy_table(read_records("10_findiff_privacy_budget", "standard")).set_index("epsilon")
    assert table.loc["1", "delta"] == STATEMENT["delta"] and table.loc["1", "sampling"] == STATEMENT["sampling"]
    assert table.loc["inf", "delta"] == "–"
    with pytest.raises(ValueError, match="lacks unit, adjacency"):
        run.privacy({"epsilon": 1.0, "delta": 1e-5, "accountant": "pld"})


def test_wide_frames_become_metrics(new_run):
    run = new_run()
    run.metrics(pd.DataFrame({"classifier": ["a", "b"], "roc_auc": [0.5, math.nan]}), labels=["classifier"],
                reason="one class", method="ours")
    run.save()
    frame = records.load_records(scale="standard")
    value = frame.set_index("classifier")["value"]
    assert value["a"] == 0.5 and math.isnan(value["b"])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda run: run.metric("pair_trends", math.nan), ValueError, "is nan"),
        (lambda run: run.metric("epsilon", math.inf), ValueError, "record None and say why"),
        (lambda run: run.metric("pair_trends", None), ValueError, "say why"),
        (lambda run: run.metric("pair_trends", "0.5"), TypeError, "must be a number"),
        (lambda run: run.metric("pair_trends", True), TypeError, "must be a number"),
        (lambda run: run.metric("Pair Trends", 0.5), ValueError, "lower case"),
        (lambda run: run.metric("pair_trends", 0.5, seed=1), ValueError, "cannot be labels"),
        (lambda run: run.metric("pair_trends", 0.5, clients=[1, 2]), TypeError, "label"),
        (lambda run: run.metric("pair_trends", np.ones(3)), TypeError, "must be a number"),
        (lambda run: run.save(), ValueError, "has no metric"),
    ],
)
def test_bad_metrics_are_refused(new_run, call, error, words):
    with pytest.raises(error, match=words):
        call(new_run())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"notebook": "Findiff"}, "stem such as"), ({"scale": "big"}, "quick, standard, paper"), ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"), ({"parameters": {"seed": 5}}, "parameters say seed"),
        ({"parameters": {"lr": math.nan}}, "parameters.lr is NaN"), ({"parameters": {"x": object()}}, "parameters.x"),
    ],
)
def test_bad_starts_are_refused(change, words):
    good = {"notebook": "10_findiff_privacy_budget", "scale": "quick", "parameters": {}, "seed": 0}
    with pytest.raises((ValueError, TypeError), match=words):
        records.start(**(good | change))


def test_the_same_metric_twice_is_refused_unless_equal(new_run):
    run = new_run()
    run.metric("pair_trends", 0.5, method="ours")
    run.metric("pair_trends", 0.5, method="ours")
    with pytest.raises(ValueError, match="already recorded"):
        run.metric("pair_trends", 0.6, method="ours")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[: len(text) // 2], "not a usable record"),
        (lambda text: text.replace('"value": 0.9', '"value": NaN'), "NaN is not allowed"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema 99"),
        (lambda text: text.replace('"notes"', '"remarks"'), "unknown"),
        (lambda text: text.replace('"scale": "standard"', '"scale": "quick"'), "scale quick"),
        (lambda text: text.replace('"key": "dataset=toy', '"key": "dataset=other'), "it holds the record"),
        (lambda text: "[]", "must be an object"),
        (lambda text: text.replace('"value": 0.9', '"value": null'), "null without a reason"),
    ],
)
def test_spoilt_record_files_are_named(new_run, home, spoil, words):
    new_run(save=True)
    path = next((home / "results/standard/records").glob("*.json"))
    spoilt = spoil(path.read_text())
    assert spoilt != path.read_text()
    path.write_text(spoilt)
    with pytest.raises(RecordError, match=words) as fault:
        records.load_records(scale="standard")
    assert path.name in str(fault.value)


def test_seeds_of_different_settings_are_not_averaged(new_run):
    new_run(seed=0, save=True)
    new_run(seed=1, save=True, rounds=4)
    with pytest.raises(RecordError, match="differ in rounds"):
        records.load_records(scale="standard")


def test_quick_keeps_one_setting_and_never_touches_the_others(new_run, home):
    new_run(seed=0, save=True)
    before = {path: path.read_bytes() for path in (home / "results/standard").rglob("*.json")}
    new_run(scale="quick", seed=0, save=True)
    new_run(scale="quick", seed=1, save=True)
    new_run(scale="quick", seed=1, save=True, rounds=4)
    assert {path: path.read_bytes() for path in (home / "results/standard").rglob("*.json")} == before and before
    kept = records.load_records(scale="quick")
    assert kept["seed"].tolist() == [1] and kept["parameters.rounds"].tolist() == [4]
    assert records.load_records(scale="paper").empty


def test_keys_are_safe_and_distinct(tmp_path):
    def key(path):
        return records.start(notebook="00_x", scale="quick", parameters={"dataset": path}, seed=0).key

    keys = [key("a/b"), key("a-b"), key("a b"), key("x" * 300), key("x" * 301), key("/p/t.csv"), key("/q/t.csv")]
    assert len(set(keys)) == len(keys)
    assert all(len(name) < 130 and "/" not in name for name in keys)


def test_scales_pick_and_refuse():
    assert scales.pick("paper", quick=1, standard=2, paper=3) == 3
    with pytest.raises(ValueError, match="quick, standard, paper"):
        scales.pick("smoke", quick=1, standard=2, paper=3)


def test_a_killed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "a.json", "old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_code_version_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    code = provenance.code()
    assert code["commit"] == "unknown" and code["modified"] is None and len(code["sources_sha256"]) == 64


def test_peak_memory_is_that_of_this_process_only():
    program = (
        "import resource; from feddiff.experiments.provenance import peak_memory_bytes as p\n"
        "a = p(); b = b'x' * 300_000_000; print(p() - a)"
    )
    ballast = b"x" * 900_000_000
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    # The peak of importing may lie above what is in use by then, so a part of the growth is hidden.
    assert len(ballast) and 150_000_000 < grown < 330_000_000


def test_code_is_that_of_the_start_of_the_run(monkeypatch):
    before = {"commit": "a" * 40, "modified": False, "sources_sha256": "0" * 64}
    monkeypatch.setattr(provenance, "code", lambda: before)
    run = records.start(notebook="10_findiff_privacy_budget", scale="quick", parameters={"dataset": "adult"}, seed=0)
    monkeypatch.setattr(provenance, "code", lambda: before | {"commit": "b" * 40})
    run.metric("pair_trends", 0.9)
    assert json.loads(run.save().read_text(encoding="utf-8"))["run"]["code"] == before
