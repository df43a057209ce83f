"""What a notebook's result depends on, as one hash: its code, the library modules it can reach, its parameters.

Modification times say nothing after `git clone`, so a finished job is recognised by content. Comments and docstrings
are left out: they change no number, and a standard run costs more than an hour.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from feddiff.experiments.parameters import code_cells, read_notebook, source

_PACKAGE = Path(__file__).resolve().parents[1]
# Tables and figures are functions of records, rebuilt after every batch: how they are drawn changes no record.
RENDERING = "feddiff.experiments.collate"


def _file(module: str) -> Path | None:
    base = _PACKAGE.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported(tree: ast.AST, module: str = "", is_package: bool = False) -> Iterable[str]:
    """Yield the dotted names that `tree` imports; for `from a import b` both a and a.b, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + int(is_package)]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def significant(text: str) -> str:
    """Return Python source without comments, docstrings and blank lines, the same under every Python version."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            for row in range(first.lineno - 1, first.end_lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    path = _file(module)
    text = path.read_text(encoding="utf-8")
    return significant(text), tuple(imported(ast.parse(text), module, path.name == "__init__.py"))


def library(modules: Iterable[str], *, without: Iterable[str] = ()) -> dict[str, str]:
    """Return module -> significant source, for `modules` and everything in feddiff that they import in turn.

    without: modules that are left out, with whatever only they reach.
    """
    found: dict[str, str] = {}
    waiting, left_out = list(modules), set(without)
    while waiting:
        name = waiting.pop()
        if name in found or name in left_out or name.split(".")[0] != "feddiff" or _file(name) is None:
            continue
        found[name], more = _module(name)
        waiting += more
        # Importing a module runs the packages above it first.
        waiting += [name.rsplit(".", 1)[0]] if "." in name else []
    return found


def _imports_of(cells: list[str]) -> Iterable[str]:
    for cell in cells:
        # Magics and shell escapes are IPython's, not Python's; no library module is imported by one.
        plain = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines())
        yield from imported(ast.parse(plain))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content_key(notebook: Path, parameters: dict, files: Iterable[Path] = ()) -> str:
    """Return the SHA-256 of the notebook's code, the library it reaches, `parameters` and the content of `files`.

    What draws tables and figures from records (RENDERING) is left out: a better figure makes no run stale.
    A parameter whose text is the path of a file (a user's own table) counts with the content of that file.
    """
    cells = [source(cell) for cell in code_cells(read_notebook(notebook))]
    own = {
        name: _digest(Path(value)) for name, value in parameters.items()
        if isinstance(value, str) and value and (notebook.parent / value).is_file()
    }
    whole = {
        "cells": cells, "library": library(_imports_of(cells), without=[RENDERING]), "parameters": parameters,
        "tables": own, "files": {path.name: _digest(path) for path in sorted(files)},
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
