"""What made a number: code, packages, machine class and cost; never a host name, a user name or an absolute path."""

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

import feddiff

# The packages whose version can change a number.
PACKAGES = (
    "feddiff", "torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn", "opacus", "dp-accounting", "pyarrow",
)
# Paths whose modification makes a result "modified": a run writes results, so those do not count.
_CODE_PATHS = ("lib", "notebooks", "pyproject.toml")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def sources_sha256() -> str:
    """Return one SHA-256 over every Python source of the package, so that code is named even without git."""
    digest = hashlib.sha256()
    package = Path(feddiff.__file__).resolve().parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code() -> dict:
    """Return commit ("unknown" without git), modified (None without git) and the hash of the sources."""
    root = Path(feddiff.__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    # A checkout unpacked inside somebody else's repository must not borrow its commit.
    inside = top is not None and Path(top).resolve() == root
    commit = _git(root, "rev-parse", "HEAD") if inside else None
    status = _git(root, "status", "--porcelain", "--", *_CODE_PATHS) if commit else None
    return {
        "commit": commit or "unknown",
        "modified": None if status is None else bool(status),
        "sources_sha256": sources_sha256(),
    }


def versions() -> dict[str, str | None]:
    """Return the installed version of each package of PACKAGES (None: not installed)."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def device(kind: str = "cpu") -> dict:
    """Return what computed: {"kind": "cpu" | "cuda", "name", "cores", "cuda"}; `kind` as given to torch."""
    chosen = torch.device(kind)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else _processor()
    return {"kind": chosen.type, "name": name, "cores": os.cpu_count(), "cuda": torch.version.cuda}


def machine(kind: str = "cpu") -> dict:
    """Return packages, Python, platform class, device and threads."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device(kind),
        "threads": torch.get_num_threads(),
    }


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would also count the peak of the parent before exec: a kernel inherits that of its launcher.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
