"""Whole runs of toy notebooks: each starts Snakemake and kernels, so each test checks several things on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from feddiff.experiments import batch



def _count(expression):
    """Return a cell that notes the value of `expression` in count.txt."""
    return f'with open("../count.txt", "a") as file:\n    file.write(str({expression}) + " ")'


def _command(toys, *options):
    return [sys.executable, "-m", "feddiff.experiments.batch", "quick", "--notebooks", str(toys.folder), *options]


def _run(toys, *options):
    return subprocess.run(_command(toys, *options), capture_output=True, text=True, timeout=300, check=False)


def _counts(toys):
    path = toys.home / "count.txt"
    return sorted(path.read_text().split()) if path.is_file() else []


def _outcomes(done):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()[1:]}


def _wait(condition, seconds=120.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def _status(toys, job):
    path = toys.result("status", f"{job}.json")
    return json.loads(path.read_text()) if path.is_file() else {"outcome": "none"}


@pytest.mark.parametrize(("options", "words"), [
    (["-p", "sede=1"], "no selected notebook has a parameter sede"),
    (["-p", "seed=one"], "seed must be of type int"),
    (["-p", "seed"], "expected NAME=VALUE"),
    (["-p", "seed=1", "-p", "seed=2"], "given twice"),
    (["--only", "77"], "matches no job"),
])
def test_a_wrong_command_is_refused_before_anything_starts(toys, capsys, options, words):
    toys.notebook("10_toy", 'scale = "quick"\nseed = 0', "assert True")
    toys.plan("10_toy: {quick: {}}")
    assert batch.main(["quick", "--notebooks", str(toys.folder), *options]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not toys.result().exists()


def test_jobs_below_one_and_unknown_scales_are_refused(toys, capsys):
    for arguments in (["quick", "--jobs", "0"], ["quack"], ["quick", "--fre"]):
        with pytest.raises(SystemExit) as refused:
            batch.main(arguments)
        assert refused.value.code == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err


def test_a_dry_run_lists_and_runs_nothing(toys, capsys):
    toys.notebook("10_toy", 'scale = "quick"\nseed = 0', "assert True")
    toys.plan("10_toy: {quick: {seed: [0, 1]}}")
    assert batch.main(["quick", "--notebooks", str(toys.folder), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["run         10_toy--seed=0", "run         10_toy--seed=1"]
    assert not toys.result().exists()


@pytest.mark.slow
def test_a_failure_stops_only_what_waits_for_it_and_the_next_run_goes_on(toys):
    where = "import json, nbformat\nprint(json.__file__, nbformat.__file__)"
    toys.notebook("10_good", 'scale = "quick"\nseed = 0', _count('f"good{seed}"'), where)
    toys.notebook("11_bad", 'scale = "quick"', "value = 1", 'assert value == 2, "no luck"')
    toys.notebook("90_claims", 'scale = "quick"', _count('"claims"'))
    toys.plan("10_good: {quick: {seed: [0, 1]}}\n11_bad: {quick: {}}\n90_claims: {after: all, quick: {}}")

    done = _run(toys, "--jobs", "3")
    assert done.returncode == 1, done.stderr
    outcomes = _outcomes(done)
    assert outcomes["10_good--seed=0"].startswith("ok ")
    assert outcomes["10_good--seed=1"].startswith("ok ")
    assert outcomes["11_bad"].startswith("failed (In [4]: AssertionError: no luck)")
    assert outcomes["90_claims"] == "not run (waits for one that failed)"
    assert float(outcomes["10_good--seed=0"].split()[-1]) > 0
    assert "[3/4]" in done.stderr
    assert "\r" not in done.stderr
    assert _counts(toys) == ["good0", "good1"]
    names = sorted(path.name for path in toys.result("notebooks").iterdir())
    assert names == ["10_good--seed=0.ipynb", "10_good--seed=1.ipynb", "11_bad.failed.ipynb"]
    assert "no luck" in toys.result("notebooks", "11_bad.failed.ipynb").read_text()
    executed = toys.result("notebooks", "10_good--seed=1.ipynb").read_text()
    for place in (str(toys.home), sys.prefix, sys.base_prefix):
        assert place not in executed
    assert "json/__init__.py nbformat/__init__.py" in executed
    assert "seed = 1" in executed
    # The sockets of the kernels went elsewhere, whatever the folder of the notebooks is called.
    assert sorted(path.suffix for path in toys.folder.iterdir()) == [".ipynb", ".ipynb", ".ipynb", ".yaml"]

    toys.notebook("11_bad", 'scale = "quick"', "value = 1", "assert value == 1")
    done = _run(toys)
    assert done.returncode == 0, done.stderr
    outcomes = _outcomes(done)
    assert {name: text.split()[0] for name, text in outcomes.items()} == {
        "10_good--seed=0": "up", "10_good--seed=1": "up", "11_bad": "ok", "90_claims": "ok",
    }
    assert not toys.result("notebooks", "11_bad.failed.ipynb").exists()
    assert _counts(toys) == ["claims", "good0", "good1"]

    done = _run(toys)
    assert done.returncode == 0
    assert _counts(toys) == ["claims", "good0", "good1"]


@pytest.mark.slow
def test_fresh_runs_finished_jobs_again_and_tells_the_notebook(toys):
    toys.notebook("10_toy", 'scale = "quick"', 'import os\nprint("fresh is", os.environ.get("FEDDIFF_FRESH"))')
    toys.plan("10_toy: {quick: {}}")
    executed = toys.result("notebooks", "10_toy.ipynb")
    assert _run(toys).returncode == 0
    assert "fresh is None" in executed.read_text()
    assert _run(toys, "--fresh").returncode == 0
    assert "fresh is 1" in executed.read_text()


@pytest.mark.slow
def test_tables_and_figures_can_be_left_for_later(toys):
    toys.notebook("10_toy", 'scale = "quick"', "assert True")
    toys.plan("10_toy: {quick: {}}")
    record = toys.result("records", "10_toy.json")
    record.parent.mkdir(parents=True)
    record.write_text("no record")
    done = _run(toys)
    assert done.returncode == 1
    assert "tables and figures" in done.stdout
    done = _run(toys, "--fresh", "--no-figures")
    assert done.returncode == 0, done.stderr
    assert "tables and figures" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_where_it_was(toys, monkeypatch, sign):
    toys.notebook("10_first", 'scale = "quick"', _count('"first"'))
    begin = 'import os, pathlib, time\npathlib.Path("../began").touch()'
    wait = f'{begin}\nwhile "TOY_GO" not in os.environ:\n    time.sleep(0.1)'
    toys.notebook("11_second", 'scale = "quick"', wait, _count('"second"'))
    toys.plan("10_first: {quick: {}}\n11_second: {after: [10_first], quick: {}}")

    process = subprocess.Popen(_command(toys, "--jobs", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait((toys.home / "began").exists)
    if sign is signal.SIGKILL:
        second = _run(toys)
        assert second.returncode == 2
        assert "another run of this scale is going on" in second.stderr
    process.send_signal(sign)
    _, message = process.communicate(timeout=60)
    if sign is signal.SIGTERM:
        assert process.returncode == 130
        assert "the same command goes on where it stopped" in message
    assert _status(toys, "10_first")["outcome"] == "ok"
    assert _status(toys, "11_second")["outcome"] in ("running", "failed")
    assert not toys.result("notebooks", "11_second.ipynb").exists()

    monkeypatch.setenv("TOY_GO", "1")
    done = _run(toys, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert _outcomes(done)["10_first"].startswith("up to date")
    assert _counts(toys) == ["first", "second"]
