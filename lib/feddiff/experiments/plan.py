"""The plan of a scale: which notebook runs on which data set and seed, and after which others.

notebooks/plan.yaml, one entry a notebook:

    10_findiff_privacy_budget:
      quick: {dataset: [adult, bank-marketing], seed: [0]}     # a list is an axis: one job for each combination
      standard: {dataset: [credit-default], seed: [0, 1, 2], clients: 5}     # one value is a setting of every job
    90_claims:
      after: all          # or a list of notebooks; waits for them, and runs again when one of their records changes
      files: [claims.yaml]     # files beside the notebook that its result depends on
      quick: {}

A notebook without an entry for a scale is no part of that scale. Where the notebook's default is itself a list, one
list is a setting and a list of lists is an axis.
"""

import fnmatch
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from feddiff.experiments import parameters, scales, sources, status


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one notebook: `name` is <notebook>--<key>, the stem of its record, status and executed copy."""

    name: str
    notebook: str
    parameters: dict
    after: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def path(self, folder: Path) -> Path:
        """Return the notebook file in `folder`."""
        return folder / f"{self.notebook}.ipynb"

    def content_key(self, folder: Path, scale: str) -> str:
        """Return the hash of everything the job depends on, with the records of the notebooks that it waits for."""
        read = [folder / name for name in self.files]
        for stem in {name.split("--")[0] for name in self.after}:
            read += scales.records_folder(scale).glob(f"{stem}--*.json")
        return sources.content_key(self.path(folder), self.parameters, read)


def read(folder: Path) -> dict:
    """Return plan.yaml of `folder` as notebook -> entry; ValueError that names what is wrong."""
    path = folder / "plan.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"there is no plan.yaml in {folder}; it lists what to run")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise ValueError(f"plan.yaml is not YAML: {fault}") from fault
    if not isinstance(content, dict) or not content:
        raise ValueError("plan.yaml must map notebooks to scales")
    for stem, entry in content.items():
        if not isinstance(entry, dict) or not entry or set(entry) - {*scales.SCALES, "after", "files"}:
            raise ValueError(
                f"plan.yaml, {stem}: expected some of {', '.join(scales.SCALES)}, after, files; got {entry!r}"
            )
        for scale in scales.SCALES:
            if not isinstance(entry.get(scale, {}), dict):
                raise ValueError(f"plan.yaml, {stem}, {scale}: expected {{name: value}}, got {entry[scale]!r}")
        after = entry.get("after", [])
        missing = [] if after == "all" else [name for name in after if name not in content]
        if missing:
            raise ValueError(f"plan.yaml, {stem}: after names {', '.join(missing)}, which the plan does not have")
    return content


def _text(value) -> str:
    text = str(value)
    return PurePosixPath(text).name if PurePosixPath(text).is_absolute() else text


def key(axes: dict) -> str:
    """Return the readable key of a job, e.g. "dataset=adult,seed=0"; safe as part of a file name, seed last."""
    ordered = sorted(axes.items(), key=lambda item: (item[0] == "seed", item[0]))
    exact = ",".join(f"{name}={value}" for name, value in ordered)
    safe = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", ",".join(f"{name}={_text(value)}" for name, value in ordered))
    # Two values that clean to the same text must not share a file.
    if safe == exact and len(safe) <= 100:
        return safe
    return f"{safe[:90]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _is_axis(value, default) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(item, list) for item in value) if isinstance(default, list) else True


def _jobs_of(stem: str, entry: dict, scale: str, known: dict, given: dict[str, str]) -> list[Job]:
    settings = dict(entry[scale])
    for name, text in given.items():
        if name in known:
            settings[name] = parameters.parse(text, known[name], name)
    # A value given by hand takes the place of the axis, but a job keeps the same kind of name.
    named = {name for name in entry[scale] if _is_axis(entry[scale][name], known.get(name))}
    named |= {name for name in ("dataset", "seed") if name in given and name in known}
    axes = {
        name: value if name not in given and _is_axis(value, known.get(name)) else [value]
        for name, value in settings.items()
    }
    made = []
    for choice in itertools.product(*axes.values()):
        chosen = {"scale": scale, **dict(zip(axes, choice, strict=True))}
        values = parameters.check(chosen, known, f"{stem}.ipynb")
        tail = key({name: values[name] for name in named})
        made.append(Job(
            name=f"{stem}--{tail}" if tail else stem, notebook=stem, parameters=values,
            files=tuple(entry.get("files", ())),
        ))
    return made


def _matches(job: Job, pattern: str) -> bool:
    return pattern in job.name or fnmatch.fnmatchcase(job.name, pattern)


def _ordered(jobs: list[Job], plan: dict) -> list[Job]:
    """Return the jobs with `after` filled in, each behind those it waits for."""
    stems = list(dict.fromkeys(job.notebook for job in jobs))
    late = {stem for stem in stems if plan[stem].get("after") == "all"}
    waits = {
        stem: [other for other in stems if other not in late] if stem in late
        else [other for other in stems if other in plan[stem].get("after", [])]
        for stem in stems
    }
    placed: list[str] = []
    while len(placed) < len(stems):
        ready = [stem for stem in stems if stem not in placed and set(waits[stem]) <= set(placed)]
        if not ready:
            stuck = ", ".join(stem for stem in stems if stem not in placed)
            raise ValueError(f"plan.yaml: {stuck} wait for each other")
        placed += ready
    return [
        Job(name=job.name, notebook=stem, parameters=job.parameters, files=job.files,
            after=tuple(other.name for other in jobs if other.notebook in waits[stem]))
        for stem in placed for job in jobs if job.notebook == stem
    ]


def jobs(
    folder: Path, scale: str, *, only: Sequence[str] = (), given: dict[str, str] | None = None
) -> list[Job]:
    """Return the selected jobs of `scale` in an order in which they can run; every parameter is checked.

    `only` selects, each entry by part of the name or as a glob (none: all). `given` are the texts of `-p`: each must
    be a parameter of at least one selected notebook, and goes to those that have it. ValueError or FileNotFoundError
    before anything runs.
    """
    scales.check(scale)
    given = given or {}
    if "scale" in given:
        raise ValueError(f"-p scale={given['scale']}: the scale is the first argument, e.g. `./run_all.sh standard`")
    plan = read(folder)
    known = {stem: parameters.defaults(folder / f"{stem}.ipynb") for stem in plan if scale in plan[stem]}
    found = [job for stem in known for job in _jobs_of(stem, plan[stem], scale, known[stem], given)]
    # Ordered first: what a job waits for, and reads, does not depend on what was selected this time.
    ordered = _ordered(found, plan)
    idle = [pattern for pattern in only if not any(_matches(job, pattern) for job in ordered)]
    if idle:
        raise ValueError(f"--only {idle[0]} matches no job of scale {scale}; there are {', '.join(known)}")
    chosen = [job for job in ordered if not only or any(_matches(job, pattern) for pattern in only)]
    if not chosen:
        raise ValueError(f"plan.yaml has nothing for scale {scale}")
    names = [job.name for job in chosen]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"plan.yaml makes {', '.join(doubled)} twice; each combination of data set and seed once")
    lost = sorted(name for name in given if not any(name in known[job.notebook] for job in chosen))
    if lost:
        have = sorted({name for job in chosen for name in known[job.notebook]} - {"scale"})
        raise ValueError(f"no selected notebook has a parameter {', '.join(lost)}; they have {', '.join(have)}")
    missing = [name for job in chosen for name in job.files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"plan.yaml names {missing[0]}, which is not in {folder}")
    return chosen


def pending(jobs: list[Job], folder: Path, scale: str, *, fresh: bool = False) -> list[Job]:
    """Return the jobs that are not up to date, with everything that waits for one of them."""
    waiting: dict[str, Job] = {}
    for job in jobs:
        if fresh or any(name in waiting for name in job.after) or not status.up_to_date(
            scale, job.name, job.content_key(folder, scale)
        ):
            waiting[job.name] = job
    return list(waiting.values())


def to_json(jobs: list[Job], folder: Path, scale: str) -> str:
    """Return the jobs as the file that Snakemake and each job read."""
    rows = {
        job.name: {
            "notebook": job.notebook, "parameters": job.parameters, "after": job.after, "files": job.files,
        }
        for job in jobs
    }
    return json.dumps({"scale": scale, "notebooks": str(folder), "jobs": rows}, indent=1)


def from_json(text: str, name: str) -> tuple[Job, Path, str]:
    """Return the job `name` of what `to_json` wrote, its folder and its scale."""
    content = json.loads(text)
    row = content["jobs"][name]
    job = Job(name=name, notebook=row["notebook"], parameters=row["parameters"], after=tuple(row["after"]),
              files=tuple(row["files"]))
    return job, Path(content["notebooks"]), content["scale"]
