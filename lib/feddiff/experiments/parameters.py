"""The parameters of a notebook: read from its one tagged cell, checked before anything runs.

Papermill itself only logs a warning for an unknown name and injects any type, so a misspelt sweep would silently run
the defaults; here both are errors.
"""

import ast
import json
from pathlib import Path


def read_notebook(path: Path) -> dict:
    """Return the notebook as plain JSON; FileNotFoundError or ValueError that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path.name} in {path.parent}; mend plan.yaml or add it")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise ValueError(f"{path.name} is no notebook ({fault}); restore it") from fault
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"{path.name} is no notebook (it has no cells); restore it")
    return notebook


def source(cell: dict) -> str:
    """Return the text of a cell (files hold it as one string or as a list of lines)."""
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    """Return the code cells in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def defaults(path: Path) -> dict:
    """Return name -> default of the cell tagged `parameters`: one, the first code cell, plain literals only."""
    cells = code_cells(read_notebook(path))
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1 or tagged[0] is not cells[0]:
        raise ValueError(
            f"{path.name} must have exactly one code cell tagged `parameters`, and it must be the first code cell"
        )
    found = {}
    try:
        for line in ast.parse(source(tagged[0])).body:
            if not isinstance(line, ast.Assign) or len(line.targets) != 1 or not isinstance(line.targets[0], ast.Name):
                raise ValueError(f"`{ast.unparse(line)}` is not of the form `name = literal`")
            found[line.targets[0].id] = ast.literal_eval(line.value)
    except (SyntaxError, ValueError) as fault:
        raise ValueError(f"{path.name}: the parameters cell must hold plain literals only ({fault})") from fault
    return found


def _name(value) -> str:
    return "None" if value is None else type(value).__name__


def check(given: dict, known: dict, notebook: str) -> dict:
    """Return `given`, whole numbers made float where the default is one; ValueError for an unknown name or wrong type.

    A default of None takes any literal; None is taken only there. A bool is never a number, nor the reverse.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"{notebook} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}"
        )
    checked = {}
    for name, value in given.items():
        default = known[name]
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            hint = ""
            if isinstance(default, float) and isinstance(value, str):
                hint = ", e.g. 0.001 (YAML reads 1e-3 as text)"
            raise ValueError(
                f"{notebook}: {name} must be of type {_name(default)} like its default {default!r}, "
                f"got {value!r} of type {_name(value)}{hint}"
            )
        checked[name] = value
    return checked


def parse(text: str, default, name: str):
    """Return the value of `-p name=text`, read as the type of the notebook's default; ValueError if it is none."""
    if isinstance(default, str):
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        value = ast.literal_eval(text)
    except (KeyError, ValueError, SyntaxError) as fault:
        if default is None:
            return text
        raise ValueError(
            f"-p {name}={text}: {name} must be of type {_name(default)} like its default {default!r}"
        ) from fault
    return value
