"""Run one job: a notebook with its parameters, in a kernel of this very environment.

    python -m feddiff.experiments.execute JOBS_FILE JOB

The executed copy goes to results/<scale>/notebooks/<job>.ipynb by way of a .part file, so a name without suffix is a
run that ended well; a failed one is kept as <job>.failed.ipynb.
"""

import json
import logging
import os
import sys
import sysconfig
import tempfile
import traceback
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter, time

# Importing jsonschema (by way of papermill) loads this optional package, which builds a grammar for three seconds at
# each start; None makes the import fail, and jsonschema then leaves out the check of international web addresses.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from feddiff.experiments import files, plan, scales, status


class LocalKernelManager(AsyncKernelManager):
    """Kernels of this interpreter, spoken to over files: TCP ports collide when kernels start side by side."""

    @default("transport")
    def _transport(self) -> str:
        return "ipc"

    @default("ip")
    def _socket_prefix(self) -> str:
        # Jupyter's own default is the relative "kernel-ipc": two kernels with one working directory would share
        # their sockets, and one of them never answers.
        return os.path.join(jupyter_runtime_dir(), "k")

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel of this environment, whatever kernels the machine knows under the name in the notebook."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3", language="python",
        )


def _short_folder() -> tempfile.TemporaryDirectory:
    # A socket path may have some 100 characters, fewer than many temporary folders (macOS) leave for a file name.
    place = "/tmp" if os.access("/tmp", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="fd-", dir=place, ignore_cleanup_errors=True)


def _same(written, passed) -> bool:
    # Records keep the name of a user's own file, not its folder.
    return written == passed or (isinstance(passed, str) and written == Path(passed).name)


def _records(job: plan.Job, scale: str, began: float) -> list[str]:
    """Return the names of the records that this job wrote: new since it began, and with its parameters."""
    found = []
    for path in sorted(scales.records_folder(scale).glob(f"{job.notebook}--*.json")):
        if path.stat().st_mtime < began - 2:
            continue
        written = json.loads(path.read_text(encoding="utf-8")).get("parameters", {})
        if all(_same(written[name], value) for name, value in job.parameters.items() if name in written):
            found.append(path.name)
    return found


def _portable(path: Path, scale: str) -> None:
    """Take the folders of this machine out of the executed notebook: it may be committed."""
    notebook = nbformat.read(path, as_version=4)
    for name in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {})[name] = None
    text = nbformat.writes(notebook)
    # A warning names the file that raised it, which may be a library's. The longest first: one may lie in another.
    places = {str(scales.records_folder(scale).parents[2]), str(scales.checkout()), sys.prefix,
              sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place + os.sep, "")
    files.write_text(path, text + "\n")


def _run(job: plan.Job, notebook: Path, output: Path) -> None:
    with _short_folder() as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        # Papermill fills {names} in paths; ours hold none.
        papermill.execute_notebook(
            str(notebook).replace("{", "{{").replace("}", "}}"), str(output).replace("{", "{{").replace("}", "}}"),
            parameters=job.parameters, progress_bar=False, start_timeout=180, cwd=str(notebook.parent),
            kernel_manager_class=LocalKernelManager, kernel_name="python3",
        )


def execute(job: plan.Job, notebooks: Path, scale: str) -> None:
    """Run `job`, move its copy into place and write its status; whatever it raises passes on."""
    output = scales.notebooks_folder(scale) / f"{job.name}.ipynb"
    part, failed = output.with_name(f"{job.name}.part.ipynb"), output.with_name(f"{job.name}.failed.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    for old in (part, failed):
        old.unlink(missing_ok=True)
    began, clock = time(), perf_counter()
    state = {
        "job": job.name, "notebook": job.notebook, "scale": scale, "parameters": job.parameters, "outcome": "running",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "records": [],
        # Taken before the run: an edit while it runs must make it stale.
        "content_key": job.content_key(notebooks, scale),
    }
    status.write(scale, job.name, state)
    outcome, reason = "failed", "interrupted"
    try:
        _run(job, job.path(notebooks), part)
        _portable(part, scale)
        os.replace(part, output)
        state["records"] = _records(job, scale, began)
        outcome, reason = "ok", None
    finally:
        fault = sys.exc_info()[1]
        if isinstance(fault, PapermillExecutionError):
            reason = f"In [{fault.exec_count}]: {fault.ename}: {fault.evalue}".split("\n")[0][:200]
        elif fault is not None and not isinstance(fault, KeyboardInterrupt):
            reason = traceback.format_exception_only(fault)[-1].strip().split("\n")[0][:200]
        if part.is_file():
            os.replace(part, failed)
        status.write(scale, job.name, {**state, "outcome": outcome, "reason": reason,
                                       "seconds": round(perf_counter() - clock, 1)})


def main(arguments: list[str]) -> int:
    """Run the job named on the command line; 0 when it ended well, 1 when its notebook failed."""
    logging.basicConfig(level=logging.WARNING)
    jobs_file, name = arguments
    job, notebooks, scale = plan.from_json(Path(jobs_file).read_text(encoding="utf-8"), name)
    try:
        execute(job, notebooks, scale)
    except PapermillExecutionError as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
