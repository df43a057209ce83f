"""The rules of the house, read from the sources themselves: who imports whom, where chance comes from, how long."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "lib" / "feddiff"
# Each room may import itself and the rooms behind it, less the pairs below.
ORDER = ("experiments", "attacks", "evaluation", "systems", "federation", "privacy", "diffusion", "data", "seeds")
FORBIDDEN = {("attacks", "systems"), ("evaluation", "systems")}
MODULES = sorted(LIBRARY.rglob("*.py"))

_SEEDED_NUMPY = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
_TORCH_DRAWS = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "binomial",
    "rand_like", "randn_like", "randint_like",
}
_TENSOR_DRAWS = {"normal_", "uniform_", "bernoulli_", "random_", "exponential_", "cauchy_", "geometric_", "log_normal_"}
_INITIALISERS = re.compile(r"(torch\.)?nn\.init\.(\w*uniform_|\w*normal_|orthogonal_|sparse_)")
_RESEEDING = re.compile(r"torch\.(cuda\.|random\.)?(manual_seed|manual_seed_all|seed|seed_all|set_rng_state)")


def imported_rooms(tree: ast.AST, place: tuple[str, ...]) -> set[str]:
    """Return the rooms of feddiff that a module at `place` (its path below lib, as names) imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*place[: len(place) - node.level], node.module or ""]) if node.level else node.module
            names += [f"{base.strip('.')}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "feddiff" and len(part) > 1 and part[1] in ORDER}


def wrong_imports(room: str, rooms: set[str]) -> set[str]:
    """Return the rooms that `room` must not import."""
    return {other for other in rooms if ORDER.index(other) < ORDER.index(room) or (room, other) in FORBIDDEN}


def global_chance(tree: ast.AST) -> list[str]:
    """Return the calls and imports of `tree` that draw from, or reseed, a generator shared by the whole process."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            found += [f"line {node.lineno}: import random" for name in modules if name == "random"]
        if not isinstance(node, ast.Call):
            continue
        called, given = ast.unparse(node.func), {word.arg for word in node.keywords}
        last = called.rsplit(".", 1)[-1]
        drawn = (
            (re.match(r"(np|numpy)\.random\.", called) and last not in _SEEDED_NUMPY)
            or (last == "default_rng" and not node.args and not given)
            or (called == f"torch.{last}" and last in _TORCH_DRAWS and "generator" not in given)
            or (isinstance(node.func, ast.Attribute) and last in _TENSOR_DRAWS and "generator" not in given)
            or (_INITIALISERS.fullmatch(called) and "generator" not in given)
            or _RESEEDING.fullmatch(called)
            or (last == "DataLoader" and "generator" not in given)
        )
        found += [f"line {node.lineno}: {called}" for _ in range(bool(drawn))]
    return found


def broad_handlers(tree: ast.AST) -> list[int]:
    """Return the lines of handlers that catch everything and do not pass it on."""
    return [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)
        and (node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type)))
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
    ]


def _faults(check) -> dict[str, list]:
    faults = {str(path.relative_to(ROOT)): check(path) for path in MODULES}
    return {name: found for name, found in faults.items() if found}


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_room_is_in_the_order():
    rooms = {path.name for path in LIBRARY.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms | {"seeds"} == set(ORDER)


def test_rooms_import_only_rooms_below_them():
    def check(path):
        place = path.relative_to(LIBRARY.parent).with_suffix("").parts
        return sorted(wrong_imports(place[1], imported_rooms(_tree(path), place))) if place[1] in ORDER else []

    assert _faults(check) == {}


def test_chance_comes_only_from_generators_that_are_passed():
    assert _faults(lambda path: global_chance(_tree(path))) == {}


def test_no_handler_swallows_everything():
    assert _faults(lambda path: broad_handlers(_tree(path))) == {}


def test_modules_stay_readable():
    def check(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        wide = [f"line {number} has {len(line)} characters" for number, line in enumerate(lines, 1) if len(line) > 120]
        return wide + ([f"{len(lines)} lines"] if len(lines) > 350 else [])

    assert _faults(check) == {}


def test_every_module_says_what_it_is_for():
    assert _faults(lambda path: [] if ast.get_docstring(_tree(path)) or not path.stat().st_size else ["none"]) == {}


@pytest.mark.parametrize(("room", "line", "wrong"), [
    ("data", "from feddiff.privacy import noise", {"privacy"}),
    ("data", "from feddiff import privacy", {"privacy"}),
    ("data", "import feddiff.systems.findiff as findiff", {"systems"}),
    ("attacks", "from feddiff.systems import findiff", {"systems"}),
    ("evaluation", "def late():\n    from ..systems import findiff", {"systems"}),
    ("systems", "from feddiff.experiments import records", {"experiments"}),
    ("systems", "from feddiff.federation import channel\nfrom feddiff import seeds\nfrom . import pfdm", set()),
    ("attacks", "from feddiff.evaluation import membership", set()),
])
def test_the_import_rule_bites(room, line, wrong):
    assert wrong_imports(room, imported_rooms(ast.parse(line), ("feddiff", room, "module"))) == wrong


@pytest.mark.parametrize(("line", "caught"), [
    ("np.random.seed(0)", True),
    ("numpy.random.normal(0, 1)", True),
    ("np.random.default_rng()", True),
    ("np.random.default_rng(5)", False),
    ("torch.manual_seed(0)", True),
    ("generator.manual_seed(0)", False),
    ("torch.rand(3)", True),
    ("torch.rand(3, generator=generator)", False),
    ("torch.randn_like(x)", True),
    ("x.normal_()", True),
    ("x.normal_(generator=generator)", False),
    ("nn.init.kaiming_uniform_(w)", True),
    ("torch.nn.init.zeros_(w)", False),
    ("import random", True),
    ("from random import choice", True),
    ("DataLoader(rows, shuffle=True)", True),
])
def test_the_chance_rule_bites(line, caught):
    assert bool(global_chance(ast.parse(line))) is caught


@pytest.mark.parametrize(("handler", "caught"), [
    ("except:\n    pass", True),
    ("except Exception as fault:\n    print(fault)", True),
    ("except (ValueError, Exception):\n    pass", True),
    ("except BaseException:\n    clean()\n    raise", False),
    ("except ValueError:\n    pass", False),
])
def test_the_handler_rule_bites(handler, caught):
    assert bool(broad_handlers(ast.parse(f"try:\n    work()\n{handler}"))) is caught
