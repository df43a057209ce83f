"""pyproject.toml, constraints.txt and environment.yml must ask for the same thing."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import feddiff
from feddiff.experiments import environment

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PINS = environment.pins(ROOT)
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
DIRECT = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS]]
# Names under which distributions are imported, where the two differ.
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}


def test_every_line_of_the_constraints_is_one_exact_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    plain = [line for line in lines if line.strip() and not line.startswith("#")]
    assert [line for line in plain if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    assert len(plain) == len(PINS)


def test_every_direct_dependency_is_pinned_within_its_range():
    wrong = {
        str(wish): PINS.get(environment.canonical(wish.name))
        for wish in DIRECT
        if Version(PINS.get(environment.canonical(wish.name), "0")) not in wish.specifier
    }
    assert wrong == {}


def test_no_wheel_of_one_platform_is_pinned():
    assert [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_conda_installs_the_same_package_at_the_same_versions():
    plain = [item for item in CONDA["dependencies"] if isinstance(item, str)]
    pip = next(item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict))
    assert pip == ["-c constraints.txt", "-e .[test]"]
    python = next(item for item in plain if item.startswith("python="))
    assert Version(python.removeprefix("python=") + ".0") in SpecifierSet(PROJECT["requires-python"])


def test_the_start_script_accepts_the_same_python_versions():
    script = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    low, high = re.search(r"\((\d+, \d+)\) <= sys\.version_info\[:2\] < \((\d+, \d+)\)", script).groups()
    accepted = SpecifierSet(f">={low.replace(', ', '.')},<{high.replace(', ', '.')}")
    assert accepted == SpecifierSet(PROJECT["requires-python"])


def test_everything_the_library_imports_is_a_declared_dependency():
    names = [environment.canonical(wish.name) for wish in DIRECT]
    known = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}
    # These come with ipykernel and jupyter-client, which cannot do without them.
    known |= {"traitlets", "jupyter_core", "IPython", "feddiff"} | set(sys.stdlib_module_names)
    strange = {}
    for path in sorted((ROOT / "lib" / "feddiff").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            used = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            strange.update({name: path.name for name in used if name.split(".")[0] not in known})
    assert strange == {}


def test_the_three_papers_are_cited():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    numbers = [item["value"] for reference in cited["references"] for item in reference["identifiers"]]
    assert sorted(numbers) == ["arXiv:2404.03299", "arXiv:2412.16083", "arXiv:2504.00952"]
    assert cited["version"] == feddiff.__version__
