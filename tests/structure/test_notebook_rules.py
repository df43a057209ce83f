"""The rules for notebooks: thin, parameterised, stored without outputs, each with a check, each in the plan."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from feddiff.experiments import parameters, plan

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def faults(path: Path) -> list[str]:
    """Return what is wrong with a notebook, in words."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = parameters.code_cells(content)
    texts = [parameters.source(cell) for cell in cells]
    found = []
    try:
        known = parameters.defaults(path)
        found += [] if known.get("scale") == "quick" else ['its default scale is not "quick"']
    except ValueError as fault:
        found.append(str(fault))
    found += ["a def or class in a cell"] * any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for text in texts for node in ast.walk(ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", text)))
    )
    found += ["stored outputs or execution counts"] * any(cell["outputs"] or cell["execution_count"] for cell in cells)
    found += [f"{len(cells)} code cells"] * (len(cells) > 18)
    found += ["a cell of more than 20 lines"] * any(len(text.splitlines()) > 20 for text in texts)
    found += ["no assert"] * (not any(re.search(r"^\s*assert\b", text, re.M) for text in texts))
    kernel = content.get("metadata", {}).get("kernelspec", {}).get("name")
    found += [f"its kernel is {kernel!r}, not 'python3'"] * (kernel != "python3")
    return found


def test_notebooks_keep_the_rules():
    assert NOTEBOOKS
    assert {path.name: faults(path) for path in NOTEBOOKS if faults(path)} == {}


def test_notebooks_are_named_by_section():
    assert [path.name for path in NOTEBOOKS if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)] == []


def test_the_plan_names_every_notebook_and_no_other():
    assert set(plan.read(FOLDER)) == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("scale", ["quick", "standard", "paper"])
def test_the_plan_fits_the_notebooks(scale):
    assert plan.jobs(FOLDER, scale)


def test_standard_has_three_seeds_wherever_it_has_one():
    entries = yaml.safe_load((FOLDER / "plan.yaml").read_text(encoding="utf-8"))
    seeds = {stem: entry.get("standard", {}).get("seed") for stem, entry in entries.items()}
    assert {stem: given for stem, given in seeds.items() if given is not None and len(given) < 3} == {}


def _cell(text, tags=(), outputs=(), count=None):
    return {"cell_type": "code", "source": text, "metadata": {"tags": list(tags)}, "outputs": list(outputs),
            "execution_count": count}


GOOD = [_cell('scale = "quick"\nseed = 0', ["parameters"]), _cell("value = 1"), _cell("assert value == 1")]


@pytest.mark.parametrize(("cells", "words"), [
    (GOOD, None),
    ([*GOOD, _cell("def f():\n    pass")], "def or class"),
    ([*GOOD, _cell("%matplotlib inline\nif seed:\n    class A: pass")], "def or class"),
    ([*GOOD, _cell("1", outputs=[{"output_type": "stream"}])], "outputs"),
    ([*GOOD, _cell("1", count=3)], "outputs"),
    ([*GOOD, *[_cell("1")] * 16], "code cells"),
    ([*GOOD, _cell("a = 1\n" * 21)], "20 lines"),
    (GOOD[:2], "no assert"),
    ([GOOD[1], GOOD[0], GOOD[2]], "first code cell"),
    ([GOOD[0], GOOD[0], GOOD[2]], "exactly one"),
    ([_cell('scale = "paper"', ["parameters"]), *GOOD[1:]], "quick"),
    ([_cell('scale = "quick"\nrate = 1 / 3', ["parameters"]), *GOOD[1:]], "plain literals"),
    ([_cell('scale = "quick"\nimport math', ["parameters"]), *GOOD[1:]], "plain literals"),
])
def test_the_notebook_rules_bite(tmp_path, cells, words):
    path = tmp_path / "10_toy.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}}))
    found = faults(path)
    assert (not found) if words is None else any(words in fault for fault in found)


def test_a_cell_of_a_notebook_under_test_waits_longer_than_nbval_would(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "conftest.py").write_text((FOLDER / "conftest.py").read_text() + (
        "\n\ndef pytest_collection_finish(session):\n    print([i.output_timeout for i in session.items])\n"
    ))
    path = folder / "10_toy.ipynb"
    notebook = {"cells": GOOD, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--collect-only", "-q", "-s", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "[120, 120, 120]" in done.stdout, done.stdout + done.stderr
