"""Does this Python hold what the companion was tested with? `run_all.sh` runs this file before anything is installed.

    python environment.py check ROOT [STAMP_FILE]    exit 0: ready; exit 1: one line on stdout says what differs
    python environment.py stamp ROOT                 print the stamp that a completed installation leaves

Standard library only (the environment may be empty), any Python that can parse it.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path


def canonical(name: str) -> str:
    """Return the distribution name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(root: Path) -> dict[str, str]:
    """Return canonical name -> exact version, from constraints.txt of `root`."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line.strip()) for line in lines)
    return {canonical(match[1]): match[2] for match in found if match}


def required(root: Path, extras: tuple[str, ...] = ("test",)) -> list[str]:
    """Return the canonical names of the direct dependencies in pyproject.toml of `root`, with those of `extras`."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [canonical(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines]


def differences(root: Path) -> list[str]:
    """Return what this interpreter lacks or holds at another version than constraints.txt says; empty when ready."""
    wanted = pins(root)
    # A local label such as 2.6.0+cpu is the same release built for a platform, and pip accepts it for ==2.6.0 as well.
    have = {
        canonical(found.metadata["Name"]): found.version.split("+")[0]
        for found in importlib.metadata.distributions() if found.metadata["Name"]
    }
    wrong = [f"{name} is missing" for name in [*required(root), "feddiff"] if name not in have]
    wrong += [
        f"{name} is {have[name]}, not {version}"
        for name, version in wanted.items() if have.get(name, version) != version
    ]
    spec = importlib.util.find_spec("feddiff")
    # The repository itself must be what `import feddiff` finds, also when another copy is installed.
    here = spec is not None and spec.origin is not None and Path(spec.origin).resolve().parents[1] == root / "lib"
    return wrong if here else [*wrong, "feddiff is not installed from this folder"]


def stamp(root: Path) -> str:
    """Return what an installation depends on: interpreter version, place, pyproject.toml and constraints.txt."""
    digest = hashlib.sha256(f"{sys.version}\0{root}\0".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes() + b"\0")
    return digest.hexdigest()


def main(arguments: list[str]) -> int:
    """Run the command of the module docstring."""
    command, root = arguments[0], Path(arguments[1]).resolve()
    # Run as a file, the folder of this module comes first on the path and would shadow other modules.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    if command == "stamp":
        print(stamp(root))
        return 0
    kept = Path(arguments[2]) if len(arguments) > 2 else None
    if kept and (not kept.is_file() or kept.read_text(encoding="utf-8").strip() != stamp(root)):
        print("the installation was not completed for these files")
        return 1
    wrong = differences(root)
    if wrong:
        print("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
