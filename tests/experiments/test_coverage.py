"""What the README says is committed: planned runs with a record, notebook by notebook and data set by data set."""

import nbformat
import pytest
import yaml

from feddiff.experiments import coverage


@pytest.fixture
def folder(tmp_path):
    plan = {
        "10_two": {"standard": {"dataset": ["a", "b"], "seed": [0, 1]}},
        "20_whole": {"standard": {"dataset": ["a"], "seed": [0, 1]}},
        "27_named_by_records": {"standard": {"seed": [0, 1]}},
        "48_once": {"standard": {}},
    }
    for stem, scales in plan.items():
        names = {**scales["standard"]}
        lines = ['scale = "quick"', *(f"{name} = {'0' if name == 'seed' else repr('a')}" for name in names)]
        cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{stem}.ipynb")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return tmp_path


def record(notebook, seed, dataset=None):
    return {"notebook": notebook, "seed": seed, "identity": {} if dataset is None else {"dataset": dataset}}


def test_planned_runs_are_counted_by_data_set(folder):
    records = [record("10_two", 0, "a"), record("10_two", 1, "a"), record("20_whole", 0, "a"),
               record("20_whole", 1, "a"), record("27_named_by_records", 1, "digits"), record("48_once", 0),
               record("10_two", 7, "a"), record("99_of_another_plan", 0, "a")]
    found = coverage.runs(folder, "standard", records)
    assert found == {"10_two": {"a": (2, 2), "b": (0, 2)}, "20_whole": {"a": (2, 2)},
                     "27_named_by_records": {"digits": (1, 2)}, "48_once": {"": (1, 1)}}
    text = coverage.readme_block(found, "standard")
    assert "every planned data set and seed: 20, 48." in text
    assert "10 (a 2/2, b 0/2); 27 (digits 1/2)." in text


def test_without_records_nothing_is_claimed(folder):
    assert coverage.readme_block(coverage.runs(folder, "standard", []), "standard") == (
        "No run of `standard` is committed yet.\n"
    )
