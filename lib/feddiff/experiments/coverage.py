"""Which planned runs of a scale have a record: what the README says is committed, from the plan and the records."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from feddiff.experiments import plan

MARKS = ("<!-- runs:begin -->", "<!-- runs:end -->")


def runs(folder: Path, scale: str, records: Iterable[Mapping]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return notebook -> data set ("" where it has none) -> (seeds with a record, seeds planned), in the plan's order.

    Notebooks that leave no record (start pages, the claims) are left out.
    """
    made = {(record["notebook"], record["identity"].get("dataset", ""), record["seed"]) for record in records}
    leave_records = {notebook for notebook, _, _ in made}
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for job in plan.jobs(folder, scale):
        if not job.files and (job.notebook in leave_records or "seed" in job.parameters):
            dataset = _named(job.parameters.get("dataset", ""), made, job.notebook)
            done, wanted = found.setdefault(job.notebook, {}).get(dataset, (0, 0))
            done += (job.notebook, dataset, job.parameters.get("seed", 0)) in made
            found[job.notebook][dataset] = done, wanted + 1
    return found


def _named(dataset: str, made: set[tuple], notebook: str) -> str:
    """Return the data set as the notebook's records name it, where only they or only the plan has one."""
    own = {name for stem, name, _ in made if stem == notebook}
    return own.pop() if len(own) == 1 and "" in (dataset, *own) else dataset


def readme_block(found: Mapping[str, Mapping[str, tuple[int, int]]], scale: str) -> str:
    """Return what stands between MARKS: the notebooks with all planned runs, then those with a part, set by set."""
    found = dict(sorted(found.items()))
    if not any(done for sets in found.values() for done, _ in sets.values()):
        return f"No run of `{scale}` is committed yet.\n"
    whole = [stem for stem, sets in found.items() if all(done == wanted for done, wanted in sets.values())]
    lines = [f"Committed at `{scale}` with every planned data set and seed: {', '.join(_short(s) for s in whole)}."]
    parts = []
    for stem, sets in found.items():
        if stem not in whole:
            told = ", ".join(f"{name or 'seeds'} {done}/{wanted}" for name, (done, wanted) in sets.items())
            parts.append(f"{_short(stem)} ({told})")
    if parts:
        lines.append(f"In part (seeds done / planned): {'; '.join(parts)}.")
    return "\n".join(lines) + "\n"


def _short(stem: str) -> str:
    return stem.split("_")[0]
