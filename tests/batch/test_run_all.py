"""How run_all.sh finds, makes and mends its environment: a copy of the script among stand-ins for Python, pip and df."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from feddiff.experiments import environment

ROOT = Path(__file__).resolve().parents[2]

# A stand-in for the interpreter: answers the questions that the script asks, notes what it is asked to do.
_PYTHON = """#!/bin/bash
case "$*" in
    *"sys.exit(not (3, 11)"*) exit {version_ok} ;;
    *version_info*) echo {version} ;;
    *"import ensurepip"*) exit {ensurepip} ;;
    *"-m venv"*) mkdir -p "${{@: -1}}/bin"; touch "${{@: -1}}/pyvenv.cfg"; cp "$HOME/venv python" "${{@: -1}}/bin/python" ;;
    *"pip --version"*) exit {pip_works} ;;
    *"pip install"*) echo installed >>"$HOME/log"; echo "{pip_says}"; exit {pip_exit} ;;
    *" check "*feddiff.stamp) cmp -s "$HOME/here it is/constraints.txt" "${{@: -1}}" && exit {check} || exit 1 ;;
    *" check "*) echo "torch is 1.0, not 2.0"; exit {check} ;;
    *" stamp "*) cat "$HOME/here it is/constraints.txt" ;;
    *) echo "ran: $*"; [ -z "{fails}" ] || case "$*" in *{fails}*) exit 1 ;; esac ;;
esac
"""
_GOOD = {"version_ok": 0, "version": "3.11", "ensurepip": 0, "pip_works": 0, "pip_says": "", "pip_exit": 0, "check": 0,
         "fails": ""}
_NAMES = ("python3.11", "python3.12", "python3.13", "python3", "python")


class Machine:
    """A bare machine with a copy of run_all.sh in a folder with spaces; `start` runs it there."""

    def __init__(self, home: Path):
        self.home, self.root, self.bin = home, home / "here it is", home / "bin"
        self.venv = self.root / ".venv"
        self.root.mkdir()
        self.bin.mkdir()
        shutil.copy(ROOT / "run_all.sh", self.root)
        (self.root / "constraints.txt").write_text("torch==2.0\n")
        self.base()
        self.inside()

    def write(self, path: Path, text: str) -> None:
        """Write an executable file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def base(self, names=_NAMES, **changes) -> None:
        """Set the interpreters on the PATH."""
        for name in names:
            self.write(self.bin / name, _PYTHON.format(**{**_GOOD, **changes}))

    def inside(self, **changes) -> None:
        """Set the interpreter that a new .venv will have."""
        self.write(self.home / "venv python", _PYTHON.format(**{**_GOOD, **changes}))

    def start(self, *arguments, cwd=None, **variables) -> subprocess.CompletedProcess:
        """Run the script with the stand-ins before everything else on the PATH."""
        path = f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            [str(self.root / "run_all.sh"), *arguments], env={"PATH": path, "HOME": str(self.home), **variables},
            cwd=cwd or self.home, capture_output=True, text=True, timeout=60, check=False,
        )

    def installs(self) -> int:
        """Return how often pip was asked to install."""
        log = self.home / "log"
        return log.read_text().count("installed") if log.is_file() else 0


@pytest.fixture
def machine(tmp_path):
    """A machine where everything is as it should be."""
    return Machine(tmp_path)


def _sentence(done, *words):
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("feddiff: ")
    for word in words:
        assert word in last
    assert "Traceback" not in done.stderr


def test_the_first_start_installs_and_the_next_does_not(machine):
    first, second = machine.start("quick", "--jobs", "3"), machine.start(cwd="/")
    assert "ran: -m feddiff.experiments.batch quick --jobs 3" in first.stdout, first.stderr
    assert "ran: -m feddiff.experiments.batch quick" in second.stdout
    assert machine.installs() == 1
    assert second.stderr == ""
    (machine.root / "constraints.txt").write_text("torch==2.1\n")
    assert machine.start().returncode == 0
    assert machine.installs() == 2


@pytest.mark.parametrize(("arguments", "ran"), [
    ([], "-m feddiff.experiments.batch quick"),
    (["--only", "10_*"], "-m feddiff.experiments.batch quick --only 10_*"),
    (["standard", "-p", "a=b c"], "-m feddiff.experiments.batch standard -p a=b c"),
    (["figures", "paper"], "-m feddiff.experiments.collate --scale paper"),
    (["figures"], "-m feddiff.experiments.collate --scale quick"),
    (["bench", "step"], "tests/benchmarks/run.py step"),
    (["test", "-k", "plan"], "-m pytest -k plan"),
    (["lab", "--no-browser"], "-m jupyterlab --no-browser"),
])
def test_each_command_runs_its_module(machine, arguments, ran):
    assert f"ran: {ran}" in machine.start(*arguments).stdout


def test_test_alone_runs_both_suites(machine):
    for name in ("00_first", "39_x", "40_y", "90_last"):
        (machine.root / "notebooks").mkdir(exist_ok=True)
        (machine.root / f"notebooks/{name}.ipynb").touch()
    lines = machine.start("test").stdout.splitlines()
    nbval = "ran: -m pytest --nbval-lax --nbval-current-env"
    assert lines == [
        "ran: -m pytest tests", f"{nbval} notebooks/40_y.ipynb notebooks/90_last.ipynb",
        f"{nbval} notebooks/00_first.ipynb notebooks/39_x.ipynb",
    ], "every notebook once"


@pytest.mark.parametrize("failing", ["tests", "nbval"])
def test_a_failure_of_either_suite_fails_the_command(machine, failing):
    machine.inside(fails=failing)
    done = machine.start("test")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3, "the other suite is reported all the same"


def test_help_and_unknown_commands_need_no_environment(machine):
    for arguments in (["--help"], ["-h"], ["standard", "--help"], ["figures", "-h"]):
        done = machine.start(*arguments)
        assert done.returncode == 0
        assert "--dry-run" in done.stdout
    assert machine.start("quack").returncode == 2
    assert machine.installs() == 0
    assert not machine.venv.exists()


def test_an_active_environment_is_used_when_it_fits(machine):
    machine.write(machine.home / "mine" / "bin" / "python", _PYTHON.format(**_GOOD))
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        done = machine.start(**{variable: str(machine.home / "mine")})
        assert "ran:" in done.stdout
    assert not machine.venv.exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"check": 1}, "differs from constraints.txt (torch is 1.0, not 2.0); using .venv"),
    ({"version_ok": 1}, "no Python 3.11 to 3.13 that works; using .venv"),
])
def test_an_active_environment_that_does_not_fit_is_left_alone(machine, change, words):
    machine.write(machine.home / "mine" / "bin" / "python", _PYTHON.format(**{**_GOOD, **change}))
    done = machine.start(VIRTUAL_ENV=str(machine.home / "mine"))
    assert words in done.stderr
    assert "ran:" in done.stdout
    assert machine.venv.exists()


def test_python_too_old(machine):
    machine.base(version_ok=1, version="3.8")
    _sentence(machine.start(), "Python 3.11, 3.12 or 3.13 is needed", "python3 is 3.8")
    assert not machine.venv.exists()


def test_a_later_name_on_the_path_may_be_the_right_one(machine):
    machine.base(version_ok=1, version="3.8")
    machine.base(names=("python3.13",))
    assert machine.start().returncode == 0


def test_python_without_venv(machine):
    machine.base(ensurepip=1)
    _sentence(machine.start(), "cannot make virtual environments", "python3-venv")


def test_no_space(machine):
    machine.write(machine.bin / "df", "#!/bin/sh\necho head\necho /dev/x 100 99 1048576 99% /\n")
    _sentence(machine.start(), "not enough space", "1 GB are free")
    assert not machine.venv.exists()


@pytest.mark.parametrize(("says", "words"), [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
    ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution", "no network"),
    ("ERROR: No matching distribution found for torch==9", "No matching distribution found for torch==9"),
])
def test_a_failed_installation_is_told_in_one_sentence_and_tried_again(machine, says, words):
    machine.inside(pip_says=says, pip_exit=1)
    _sentence(machine.start(), words)
    machine.write(machine.venv / "bin" / "python", _PYTHON.format(**_GOOD))
    assert machine.start().returncode == 0
    assert machine.installs() == 2


def test_a_broken_venv_is_made_anew(machine):
    assert machine.start().returncode == 0
    (machine.venv / "bin" / "python").unlink()
    (machine.venv / "bin" / "python").symlink_to(machine.home / "removed")
    done = machine.start()
    assert done.returncode == 0
    assert ".venv is broken (its Python does not start, or is too old); making it anew" in done.stderr
    assert machine.installs() == 2


def test_a_venv_left_half_made_is_made_anew(machine):
    machine.write(machine.venv / "bin" / "python", _PYTHON.format(**{**_GOOD, "pip_works": 1}))
    (machine.venv / "pyvenv.cfg").touch()
    done = machine.start()
    assert done.returncode == 0
    assert ".venv is broken (it has no working pip" in done.stderr


def test_an_installation_stopped_half_way_is_made_anew(machine):
    assert machine.start().returncode == 0
    assert not (machine.venv / "feddiff.installing").exists()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (machine.venv / "feddiff.installing").write_text(f"{gone.pid}\n")
    (machine.venv / "half a package").touch()
    done = machine.start()
    assert done.returncode == 0
    assert "stopped half-way; making it anew" in done.stderr
    assert not (machine.venv / "half a package").exists()


def test_two_starts_do_not_install_at_once(machine):
    assert machine.start().returncode == 0
    (machine.venv / "feddiff.installing").write_text(f"{os.getpid()}\n")
    _sentence(machine.start(), "another start is installing", str(os.getpid()))
    assert machine.installs() == 1


def test_a_folder_called_venv_that_is_none_is_never_removed(machine):
    machine.venv.mkdir()
    (machine.venv / "thesis.tex").write_text("years of work")
    _sentence(machine.start(), "is no virtual environment; move it away")
    assert (machine.venv / "thesis.tex").is_file()


def test_this_environment_is_the_tested_one():
    assert environment.differences(ROOT) == []


def test_a_second_start_takes_less_than_five_seconds_of_a_core():
    stamp = ROOT / ".venv" / "feddiff.stamp"
    if Path(sys.prefix) == stamp.parent:
        # Otherwise this would be a first start: `./run_all.sh test` makes it, a bare pytest after an edit does not.
        assert stamp.read_text().strip() == environment.stamp(ROOT), "start ./run_all.sh once, then this test"
    before = os.times()
    done = subprocess.run(
        [str(ROOT / "run_all.sh"), "test", "--version"], env={**os.environ, "VIRTUAL_ENV": sys.prefix},
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert "pytest" in done.stdout + done.stderr
    after = os.times()  # CPU time: what else the machine does is no matter of the start
    assert after.children_user + after.children_system - before.children_user - before.children_system < 5


def test_differences_are_found(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["pytest>=8", "no-such_Package[x]>=1"]\n'
        '[project.optional-dependencies]\ntest = ["pyyaml"]\n'
    )
    (tmp_path / "constraints.txt").write_text("# words\npytest==0.1\npyyaml==99\nabsent-thing==1\n")
    found = environment.differences(tmp_path)
    assert found[0] == "no-such-package is missing"
    assert {text.split()[0] for text in found[1:3]} == {"pytest", "pyyaml"}
    assert found[3:] == ["feddiff is not installed from this folder"]
    assert environment.required(tmp_path) == ["pytest", "no-such-package", "pyyaml"]
    first = environment.stamp(tmp_path)
    (tmp_path / "constraints.txt").write_text("pytest==0.2\n")
    assert environment.stamp(tmp_path) != first
