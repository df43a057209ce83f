"""Run a scale: check, decide by content what has to run, let Snakemake schedule it, then rebuild tables and figures.

    python -m feddiff.experiments.batch quick [--only PATTERN] [--jobs N] [--dry-run] [--fresh] [--no-figures]
                                              [-p NAME=VALUE] [-- ...]

Exit: 0 when every job ended well, 1 when one did not, 2 when the command was refused, 130 when interrupted.
"""

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from feddiff.experiments import files, plan, scales, status
from feddiff.experiments.progress import Progress, table

_SNAKEFILE = Path(__file__).with_name("Snakefile")


class Interrupted(Exception):
    """The user, or the machine, asked the batch to stop."""


def _arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    extra: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, extra = arguments[:place], arguments[place + 1:]
    parser = argparse.ArgumentParser(prog="run_all.sh", allow_abbrev=False)
    parser.add_argument("scale", choices=scales.SCALES)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--notebooks", type=Path, default=None, help="folder of notebooks and plan.yaml")
    found = parser.parse_args(arguments)
    if found.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {found.jobs}")
    return found, extra


def _given(texts: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"-p {text}: expected NAME=VALUE")
        if name in given:
            raise ValueError(f"-p {name} is given twice; each parameter takes one value")
        # Notebooks run in their own folder, but a path is typed relative to the user's.
        given[name] = str(Path(value).resolve()) if Path(value).is_file() else value
    return given


def _alone(state: Path) -> int:
    """Return the lock of this scale; stops what a killed batch left behind, and refuses beside a live one."""
    state.mkdir(parents=True, exist_ok=True)
    handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    for attempt in range(50):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as busy:
            owner, group = ([int(word) for word in os.pread(handle, 100, 0).split()] + [0, 0])[:2]
            if attempt == 49 or (owner and _lives(owner)):
                raise ValueError(
                    f"another run of this scale is going on (process {owner}); wait for it or stop it"
                ) from busy
            if group and attempt == 0:
                # The lock is held by the scheduler alone: its batch was killed, and nobody would ever read its end.
                os.killpg(group, signal.SIGKILL)
            time.sleep(0.1)
    _own(handle, 0)
    return handle


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _own(handle: int, group: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()} {group}\n".encode(), 0)


def _stop(child: subprocess.Popen) -> None:
    """Ask the scheduler and its jobs to end, then make them."""
    for sign, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, sign)
            child.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _schedule(state: Path, handle: int, jobs: int, extra: list[str], progress: Progress) -> int:
    """Run Snakemake on the jobs.json of `state` and follow it; return its exit status."""
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(_SNAKEFILE), "--directory", str(state),
        "--cores", str(jobs), "--keep-going", "--nolock", "--scheduler", "greedy",
        "--quiet", "all", *extra,
    ]
    with open(state / "snakemake.log", "wb") as log:
        # A group of its own: an interrupt reaches it once, from here, whoever sent it.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=(handle,),
        )
        _own(handle, child.pid)
        try:
            while child.poll() is None:
                progress.update()
                time.sleep(0.25)
        except Interrupted:
            _stop(child)
            raise
        finally:
            progress.update()
            progress.close()
    return child.returncode


def _outcome(state: dict, waits: bool) -> str:
    if state["outcome"] == "failed":
        return f"failed ({state['reason']})"
    if state["outcome"] == "running":
        return "failed (killed)"
    if state["outcome"] == "none":
        return "not run (waits for one that failed)" if waits else "not run"
    return state["outcome"]


def _run(chosen: list[plan.Job], waiting: list[plan.Job], folder: Path, options, extra: list[str]) -> int:
    scale, state = options.scale, scales.records_folder(options.scale).parent / ".batch"
    handle = _alone(state)
    for old in (state / "done", state / ".snakemake"):
        shutil.rmtree(old, ignore_errors=True)
    files.write_text(state / "jobs.json", plan.to_json(waiting, folder, scale))
    for job in waiting:
        (status.folder(scale) / f"{job.name}.json").unlink(missing_ok=True)
    if options.fresh:
        os.environ["FEDDIFF_FRESH"] = "1"
    code, stopped = 0, False
    if waiting:
        try:
            code = _schedule(state, handle, options.jobs, extra, Progress(scale, [job.name for job in waiting]))
        except Interrupted:
            stopped = True
    names = {job.name for job in waiting}
    rows, failed = [], []
    for job in chosen:
        found = status.read(scale, job.name)
        outcome = _outcome(found, any(name in names for name in job.after)) if job.name in names else "up to date"
        rows.append((job.name, outcome, found.get("seconds")))
        failed += [job.name] if outcome not in ("ok", "up to date") else []
    # Without a record there is nothing to rebuild; with some, those that came through have their tables.
    if not stopped and not options.no_figures and any(scales.records_folder(scale).glob("*.json")):
        rows.append(_collate(scale))
        failed += ["collate"] if rows[-1][1].startswith("failed") else []
    print(table(rows))
    if stopped:
        print("feddiff: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    if code and not failed:
        print(f"feddiff: Snakemake failed; the end of {state.name}/snakemake.log:", file=sys.stderr)
        print("\n".join((state / "snakemake.log").read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
    if failed:
        place = scales.notebooks_folder(scale)
        print(f"feddiff: {len(failed)} not ok; failed notebooks are kept as {place}/*.failed.ipynb, "
              f"details in {state}/snakemake.log", file=sys.stderr)
    return 1 if failed or code else 0


def _collate(scale: str) -> tuple[str, str, float]:
    begin = time.monotonic()
    command = [sys.executable, "-m", "feddiff.experiments.collate", "--scale", scale]
    code = subprocess.run(command, check=False).returncode
    return "tables and figures", f"failed (exit {code})" if code else "ok", time.monotonic() - begin


def _raise(number, frame):
    raise Interrupted


def main(arguments: list[str]) -> int:
    """Run the batch; see the module docstring."""
    options, extra = _arguments(arguments)
    try:
        folder = (options.notebooks or scales.checkout() / "notebooks").resolve()
        chosen = plan.jobs(folder, options.scale, only=options.only, given=_given(options.given))
        waiting = plan.pending(chosen, folder, options.scale, fresh=options.fresh)
        if options.dry_run:
            names = {job.name for job in waiting}
            print("\n".join(f"{'run' if job.name in names else 'up to date':<10}  {job.name}" for job in chosen))
            return 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _raise)
        return _run(chosen, waiting, folder, options, extra)
    except (ValueError, FileNotFoundError) as fault:
        print(f"feddiff: {fault}", file=sys.stderr)
        return 2
    except Interrupted:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
