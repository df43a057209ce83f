"""Rebuild every table and figure of a scale from its records alone: `python -m feddiff.experiments.collate`."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from feddiff.experiments import scales, style, tables
from feddiff.experiments.records import load_records


@dataclass(frozen=True)
class Report:
    """Tables (for reading), figures and files of one notebook at one scale."""

    notebook: str
    scale: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def table(self, name: str = "metrics") -> pd.DataFrame:
        """Return a table; KeyError names the ones there are."""
        if name not in self.tables:
            raise KeyError(f"{self.notebook} has no table {name!r}; it has {', '.join(self.tables) or 'none'}")
        return self.tables[name]

    def figure(self, name: str):
        """Return the PNG of a figure for display; KeyError names the ones there are."""
        from IPython.display import Image

        wanted = f"{self.notebook}--{name}.png"
        for path in self.files:
            if path.name == wanted:
                return Image(filename=str(path), width=int(96 * style.WIDTH * 1.3))
        raise KeyError(f"{self.notebook} has no figure {name!r}; it has {', '.join(self.figures) or 'none'}")


def report(notebook: str, scale: str) -> Report:
    """Write and return the tables and figures of `notebook` from all its records at `scale`."""
    scales.check(scale)
    frame = load_records(notebook, scale)
    made = Report(notebook=notebook, scale=scale)
    if frame.empty:
        return made
    for name, part in (("metrics", frame[~frame["timing"]]), ("timings", frame[frame["timing"]])):
        if len(part):
            full = tables.summarise(part)
            made.tables[name] = tables.wide(full)
            made.files.extend(tables.write(full, made.tables[name], notebook, name, scale))
    return made
