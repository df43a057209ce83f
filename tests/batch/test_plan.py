import json

import pytest

from feddiff.experiments import plan, sources, status

TRAIN = 'scale = "quick"\ndataset = "adult"\nseed = 0\nrate = 0.5'


@pytest.fixture
def two(toys):
    toys.notebook("10_train", TRAIN, "from feddiff.experiments import scales", "assert seed >= 0")
    toys.notebook("11_other", 'scale = "quick"\nseed = 0', "assert True")
    toys.notebook("90_claims", 'scale = "quick"', "assert True")
    (toys.folder / "claims.yaml").write_text("F1: 1")
    toys.plan("""
10_train: {quick: {dataset: [adult, bank], seed: [0, 1], rate: 1}, standard: {dataset: [adult], seed: [0]}}
11_other: {quick: {}}
90_claims: {after: all, files: [claims.yaml], quick: {}}
""")
    return toys


def _names(jobs):
    return [job.name for job in jobs]


def _finish(toys, jobs, records=()):
    for job in jobs:
        status.write("quick", job.name, {
            "outcome": "ok", "content_key": job.content_key(toys.folder, "quick"), "records": list(records),
        })


def test_lists_are_axes_and_values_are_settings(two):
    jobs = plan.jobs(two.folder, "quick")
    assert _names(jobs) == [
        "10_train--dataset=adult,seed=0", "10_train--dataset=adult,seed=1", "10_train--dataset=bank,seed=0",
        "10_train--dataset=bank,seed=1", "11_other", "90_claims",
    ]
    assert jobs[1].parameters == {"scale": "quick", "dataset": "adult", "seed": 1, "rate": 1.0}
    assert jobs[-1].after == tuple(_names(jobs[:-1]))
    assert _names(plan.jobs(two.folder, "standard")) == ["10_train--dataset=adult,seed=0"]


@pytest.mark.parametrize(("only", "number"), [
    (["10_*"], 4), (["*bank*"], 2), (["seed=1"], 2), (["90"], 1), (["11", "*bank*", "bank,seed=0"], 3), ([], 6),
])
def test_only_selects_by_part_or_glob(two, only, number):
    assert len(plan.jobs(two.folder, "quick", only=only)) == number


def test_values_given_by_hand_go_where_they_exist(two):
    jobs = plan.jobs(two.folder, "quick", given={"dataset": "wine", "seed": "7", "rate": "0.25"})
    assert _names(jobs) == ["10_train--dataset=wine,seed=7", "11_other--seed=7", "90_claims"]
    assert jobs[0].parameters == {"scale": "quick", "dataset": "wine", "seed": 7, "rate": 0.25}
    assert jobs[1].parameters == {"scale": "quick", "seed": 7}


@pytest.mark.parametrize(("choice", "words"), [
    ({"given": {"sede": "1"}}, "no selected notebook has a parameter sede; they have dataset, rate, seed"),
    ({"given": {"rate": "0.1"}, "only": ["11"]}, "no selected notebook has a parameter rate"),
    ({"given": {"seed": "x"}}, "-p seed=x"),
    ({"given": {"scale": "paper"}}, "the scale is the first argument"),
    ({"only": ["11", "77"]}, "--only 77 matches no job of scale quick; there are 10_train, 11_other, 90_claims"),
])
def test_a_wrong_choice_is_refused(two, choice, words):
    with pytest.raises(ValueError, match=words):
        plan.jobs(two.folder, "quick", **choice)


@pytest.mark.parametrize(("text", "words"), [
    ("10_train: {quick: {sede: [1]}}", "10_train.ipynb has no parameter sede"),
    ("10_train: {quick: {rate: [1e-3]}}", "YAML reads 1e-3 as text"),
    ("10_train: {quick: {seed: [0, 0]}}", "twice"),
    ("10_train: {quack: {}}", "plan.yaml, 10_train"),
    ("10_train: {quick: [1]}", "plan.yaml, 10_train, quick"),
    ("10_train: {after: [12_gone], quick: {}}", "after names 12_gone"),
    ("10_train: {after: [11_other], quick: {}}\n11_other: {after: [10_train], quick: {}}", "wait for each other"),
    ("- 10_train", "must map notebooks to scales"),
    ("10_train: {quick: {seed: [}", "not YAML"),
])
def test_a_wrong_plan_is_refused(two, text, words):
    two.plan(text)
    with pytest.raises(ValueError, match=words):
        plan.jobs(two.folder, "quick")


def test_a_list_valued_parameter_has_lists_of_lists_as_axis(toys):
    toys.notebook("10_train", 'scale = "quick"\nbudgets = [1.0]', "assert True")
    toys.plan("10_train: {quick: {budgets: [0.2, 1.0]}, standard: {budgets: [[0.2], [1.0]]}}")
    assert [job.parameters["budgets"] for job in plan.jobs(toys.folder, "quick")] == [[0.2, 1.0]]
    assert [job.parameters["budgets"] for job in plan.jobs(toys.folder, "standard")] == [[0.2], [1.0]]


def test_a_key_is_safe_short_and_tells_values_apart():
    assert plan.key({"seed": 0, "dataset": "adult"}) == "dataset=adult,seed=0"
    first, second = plan.key({"dataset": "/data/one/my table.csv"}), plan.key({"dataset": "/data/two/my table.csv"})
    assert first != second
    assert all("/" not in key and " " not in key and "my-table.csv" in key for key in (first, second))
    assert len(plan.key({"dataset": "x" * 400})) <= 100


def test_finished_jobs_are_up_to_date_until_something_that_matters_changes(two):
    jobs = plan.jobs(two.folder, "quick")
    assert plan.pending(jobs, two.folder, "quick") == jobs
    _finish(two, jobs)
    assert plan.pending(jobs, two.folder, "quick") == []
    assert plan.pending(jobs, two.folder, "quick", fresh=True) == jobs

    two.notebook("11_other", 'scale = "quick"\nseed = 0', "assert 1")
    assert _names(plan.pending(jobs, two.folder, "quick")) == ["11_other", "90_claims"]
    _finish(two, jobs)
    (two.folder / "claims.yaml").write_text("F1: 2")
    assert _names(plan.pending(jobs, two.folder, "quick")) == ["90_claims"]
    _finish(two, jobs)
    two.result("records").mkdir(parents=True)
    two.result("records", "10_train--dataset=adult,seed=0.json").write_text("{}")
    assert _names(plan.pending(jobs, two.folder, "quick")) == ["90_claims"]
    _finish(two, jobs)
    changed = plan.jobs(two.folder, "quick", given={"rate": "0.75"})
    assert len(plan.pending(changed, two.folder, "quick")) == 5


def test_selecting_does_not_change_what_a_job_depends_on(two):
    whole, alone = plan.jobs(two.folder, "quick")[-1], plan.jobs(two.folder, "quick", only=["90"])[0]
    assert whole == alone


def test_a_job_without_its_record_or_with_a_torn_status_runs_again(two):
    jobs = plan.jobs(two.folder, "quick", only=["11"])
    _finish(two, jobs, ["11_other--seed=0.json"])
    assert plan.pending(jobs, two.folder, "quick") == jobs
    two.result("records").mkdir(parents=True)
    two.result("records", "11_other--seed=0.json").write_text("{}")
    assert plan.pending(jobs, two.folder, "quick") == []
    two.result("status", "11_other.json").write_text('{"outcome": "ok"')
    assert plan.pending(jobs, two.folder, "quick") == jobs


def test_only_the_library_that_a_notebook_reaches_counts(toys, tmp_path, monkeypatch):
    package = tmp_path / "feddiff"
    (package / "data").mkdir(parents=True)
    texts = {
        "__init__.py": "", "data/__init__.py": "", "top.py": '"""Top."""\nfrom feddiff.data import base\n',
        "data/base.py": "import numpy as np\nvalue = 1  # one\n", "aside.py": "value = 1\n",
        "experiments/__init__.py": "", "experiments/collate.py": "from feddiff import drawing\n",
        "drawing.py": "colour = 1\n",
    }
    (package / "experiments").mkdir()
    monkeypatch.setattr(sources, "_PACKAGE", package)
    imports = "%matplotlib inline\nfrom feddiff import top\nfrom feddiff.experiments import collate"
    notebook = toys.notebook("10_train", TRAIN, imports, "assert top")

    def key(**changed):
        sources._module.cache_clear()
        for name, text in {**texts, **changed}.items():
            (package / name).write_text(text)
        return sources.content_key(notebook, {})

    first = key()
    assert key(**{"aside.py": "value = 2\n"}) == first
    assert key(**{"top.py": '"""Better words."""\n\nfrom feddiff.data import base  # the base\n'}) == first
    assert key(**{"data/base.py": "import numpy as np\nvalue = 2\n"}) != first
    assert key(**{"data/__init__.py": "value = 2\n"}) != first
    assert key(**{"experiments/__init__.py": "value = 2\n"}) != first
    # How figures are drawn from records changes no record.
    assert key(**{"experiments/collate.py": "from feddiff import drawing\nvalue = 2\n"}) == first
    assert key(**{"drawing.py": "colour = 2\n"}) == first
    sources._module.cache_clear()


def test_strings_that_look_like_comments_stay():
    assert sources.significant('a = "# not one"  # one\n') == 'a = "# not one"'
    assert sources.significant('def f():\n    """Doc."""\n    return """text"""\n') == 'def f():\n    return """text"""'


def test_the_content_of_a_users_own_table_counts(toys):
    notebook = toys.notebook("10_train", TRAIN, "assert True")
    table = toys.home / "own.csv"
    table.write_text("a\n1\n")
    first = sources.content_key(notebook, {"dataset": str(table)})
    table.write_text("a\n2\n")
    assert sources.content_key(notebook, {"dataset": str(table)}) != first


def test_a_job_survives_the_file_that_carries_it(two):
    jobs = plan.jobs(two.folder, "quick")
    text = plan.to_json(jobs, two.folder, "quick")
    assert json.loads(text)["scale"] == "quick"
    assert plan.from_json(text, jobs[1].name) == (jobs[1], two.folder, "quick")
