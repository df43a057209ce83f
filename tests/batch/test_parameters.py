import pytest

from feddiff.experiments import parameters

KNOWN = {"scale": "quick", "seed": 0, "rate": 0.5, "private": True, "target": None, "budgets": [0.2, 1.0]}


def test_defaults_are_read_from_the_tagged_cell(toys):
    path = toys.notebook("10_toy", 'scale = "quick"  # which\nrate = -1e-3\nbudgets = [0.2, {"a": None}]')
    assert parameters.defaults(path) == {"scale": "quick", "rate": -0.001, "budgets": [0.2, {"a": None}]}


@pytest.mark.parametrize("text", ["rate = 2 * 3", "import math", "a = b = 1", "a: int = 1", "a, b = 1, 2", "a ="])
def test_a_parameters_cell_of_more_than_literals_is_refused(toys, text):
    with pytest.raises(ValueError, match="10_toy.ipynb: the parameters cell must hold plain literals only"):
        parameters.defaults(toys.notebook("10_toy", text))


def test_a_notebook_that_is_missing_or_broken_is_named(toys):
    with pytest.raises(FileNotFoundError, match="no notebook 11_gone.ipynb"):
        parameters.defaults(toys.folder / "11_gone.ipynb")
    (toys.folder / "12_half.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="12_half.ipynb is no notebook"):
        parameters.defaults(toys.folder / "12_half.ipynb")


def test_right_types_pass_and_whole_numbers_become_floats():
    given = {"seed": 3, "rate": 1, "private": False, "target": "income", "budgets": [1]}
    checked = parameters.check(given, KNOWN, "10_toy.ipynb")
    assert checked == given
    assert type(checked["rate"]) is float


@pytest.mark.parametrize(("given", "words"), [
    ({"sede": 1}, "has no parameter sede; it has budgets, private, rate, scale, seed, target"),
    ({"seed": 1.0}, "seed must be of type int"),
    ({"seed": "1"}, "seed must be of type int"),
    ({"seed": True}, "seed must be of type int"),
    ({"private": 1}, "private must be of type bool"),
    ({"rate": "1e-3"}, "YAML reads 1e-3 as text"),
    ({"rate": None}, "rate must be of type float"),
    ({"rate": True}, "rate must be of type float"),
    ({"budgets": 1.0}, "budgets must be of type list"),
])
def test_unknown_names_and_wrong_types_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        parameters.check(given, KNOWN, "10_toy.ipynb")


@pytest.mark.parametrize(("name", "text", "value"), [
    ("scale", "007", "007"), ("seed", "-2", -2), ("rate", "1e-3", 0.001), ("rate", "inf", float("inf")),
    ("private", "False", False), ("target", "income", "income"), ("target", "3", 3), ("budgets", "[1, 2]", [1, 2]),
])
def test_texts_are_read_as_the_type_of_the_default(name, text, value):
    parsed = parameters.parse(text, KNOWN[name], name)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("name", "text"), [
    ("seed", "1.5"), ("seed", "one"), ("rate", "fast"), ("private", "1"), ("budgets", "[1,"),
])
def test_texts_of_another_type_are_refused(name, text):
    with pytest.raises(ValueError, match=f"-p {name}="):
        parameters.parse(text, KNOWN[name], name)
