"""Rebuild every table and figure of a scale from its records alone: `python -m feddiff.experiments.collate`."""

import argparse
import fnmatch
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from feddiff.experiments import claims, coverage, files, scales, style, tables
from feddiff.experiments.frames import long_form, privacy_table, read_records
from feddiff.experiments.report_parts import PARTS, Parts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """Tables (for reading), figures and files of one notebook at one scale; `missing`: figures and why not drawn.

    blocks: the headline, cut into a table for each set of labels where its notebook asks for that (`Parts.blocks`).
    """

    notebook: str
    scale: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    blocks: list[pd.DataFrame] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def table(self, name: str = "metrics") -> pd.DataFrame:
        """Return a table; KeyError names the ones there are."""
        if name not in self.tables:
            raise KeyError(f"{self.notebook} has no table {name!r}; it has {', '.join(self.tables) or 'none'}")
        return self.tables[name]

    def figure(self, name: str):
        """Return the PNG of a figure for display; KeyError says what is missing."""
        wanted = f"{self.notebook}--{name}.png"
        for path in self.files:
            if path.name == wanted:
                return style.picture(path, self.figures[name].get_figwidth())
        why = self.missing.get(name) or f"it has {', '.join(self.figures) or 'none'}"
        raise KeyError(f"{self.notebook} has no figure {name!r}: {why}")


def report(notebook: str, scale: str) -> Report:
    """Write and return the tables and figures of `notebook` from all its records at `scale`; empty without records."""
    records = read_records(notebook, scale)
    frame = long_form(records)
    parts = PARTS.get(notebook, Parts())
    made = Report(notebook=notebook, scale=scale)
    numbers = frame[~frame["timing"] & ~frame["name"].isin(parts.hidden)]
    wanted = {"metrics": numbers, "timings": frame[frame["timing"]]}
    if parts.pinned and len(numbers):
        leading = numbers[numbers["name"].isin(parts.shown)] if parts.shown else numbers
        wanted = {"headline": tables.pinned(leading, parts.pinned), **wanted}
    for name, part in wanted.items():
        if len(part):
            full = tables.summarise(part)
            read = made.tables[name] = tables.wide(full)
            if name == "headline" and parts.blocks:
                read = tables.blocks(read, tables.places_of(full))
                made.blocks.extend(read)
            made.files.extend(tables.write(full, read, notebook, name, scale))
    for name, make in parts.tables.items() if records else ():
        full, made.tables[name] = make(frame)
        made.files.extend(tables.write(full, made.tables[name], notebook, name, scale))
    statements = privacy_table(records)
    if len(statements):
        short = statements.assign(spent=[f"{value:.3g}" for value in statements["spent"]])
        made.tables["privacy"] = short
        made.files.extend(tables.write(statements, short, notebook, "privacy", scale))
    for name, draw in parts.figures.items() if records else ():
        try:
            made.figures[name] = draw(frame[~frame["timing"]])
        except style.NothingToDraw as reason:
            made.missing[name] = str(reason)
            _log.warning("%s--%s is not drawn: %s", notebook, name, reason)
            continue
        made.files.extend(style.finish(made.figures[name], notebook, name, scale))
    return made


def _provenance(records: list[dict]) -> str:
    commits = {record["run"]["code"]["commit"][:10] for record in records}
    modified = sum(record["run"]["code"]["modified"] is not False for record in records)
    notebooks = {record["notebook"] for record in records}
    text = f"{len(records)} records of {len(notebooks)} notebooks, code {', '.join(sorted(commits))}"
    return text + (f"; {modified} from a modified or unknown tree" if modified else "")


def update_readme(verdicts: pd.DataFrame, records: list[dict], scale: str) -> bool:
    """Rewrite what the README says of claims and of committed runs; return whether it changed."""
    path = scales.checkout() / "README.md"
    old = path.read_text(encoding="utf-8")
    new = claims.replace_block(old, claims.readme_block(verdicts, len(records)))
    done = coverage.runs(scales.checkout() / "notebooks", scale, records)
    new = claims.replace_block(new, coverage.readme_block(done, scale), coverage.MARKS)
    if new != old:
        files.write_text(path, new)
    return new != old


def collate(scale: str, only: str | None = None) -> list[Path]:
    """Rebuild tables and figures of every notebook that has records (stems matching `only`); return the files."""
    records = read_records(scale=scale)
    stems = sorted({record["notebook"] for record in records if not only or fnmatch.fnmatch(record["notebook"], only)})
    made = [path for stem in stems for path in report(stem, scale).files]
    if only is None:
        verdicts = claims.evaluate(claims.load(), long_form(records))
        made += claims.write(verdicts, scale)
        # FEDDIFF_RESULTS points elsewhere: those are not the results that the README of this checkout shows.
        if scale == "standard" and not os.environ.get("FEDDIFF_RESULTS"):
            update_readme(verdicts, records, scale)
        for folder in (scales.tables_folder(scale), scales.figures_folder(scale)):
            for path in sorted(folder.glob("*--*")):
                if path not in made and not path.name.startswith("."):
                    _log.warning("%s/%s is made by no record of this scale", folder.name, path.name)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m feddiff.experiments.collate", description=__doc__)
    parser.add_argument("--scale", default="standard", choices=scales.SCALES)
    parser.add_argument("--only", metavar="PATTERN", help="notebooks by stem, e.g. '10_*'; leaves claims as they are")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        made = collate(chosen.scale, chosen.only)
        records = read_records(scale=chosen.scale)
    except (ValueError, FileNotFoundError) as fault:
        print(f"collate: {fault}", file=sys.stderr)
        return 1
    print(f"{chosen.scale}: {len(made)} files from {_provenance(records) if records else 'no records'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
