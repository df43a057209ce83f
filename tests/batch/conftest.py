"""Toy notebooks in a folder of their own: a plan, notebooks of two cells, results beside them."""

import json
from pathlib import Path

import pytest


class Toys:
    """A folder of notebooks; results go to its parent."""

    def __init__(self, home: Path):
        self.home, self.folder = home, home / "note books"
        self.folder.mkdir()

    def notebook(self, stem: str, parameters: str, *cells: str) -> Path:
        """Write a notebook with this parameters cell and these code cells."""
        texts = [(parameters, ["parameters"]), *((cell, []) for cell in cells)]
        content = {
            "cells": [
                {"cell_type": "code", "id": f"c{number}", "source": text, "metadata": {"tags": tags}, "outputs": [],
                 "execution_count": None}
                for number, (text, tags) in enumerate(texts)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4, "nbformat_minor": 5,
        }
        path = self.folder / f"{stem}.ipynb"
        path.write_text(json.dumps(content))
        return path

    def plan(self, text: str) -> None:
        """Write plan.yaml."""
        (self.folder / "plan.yaml").write_text(text)

    def result(self, *names: str) -> Path:
        """Return a path below results/quick."""
        return self.home.joinpath("results", "quick", *names)


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """An empty folder of notebooks, with FEDDIFF_RESULTS set to its parent."""
    monkeypatch.setenv("FEDDIFF_RESULTS", str(tmp_path))
    return Toys(tmp_path)
