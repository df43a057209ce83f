"""What a batch shows while it runs and when it ends: one line, and one table."""

import sys
import time
from collections.abc import Sequence

from feddiff.experiments import status

_HEARTBEAT = 60.0


def clock(seconds: float) -> str:
    """Return m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Follows the status files of `names`; a line that is redrawn on a terminal, a line per finished job elsewhere."""

    def __init__(self, scale: str, names: Sequence[str], stream=sys.stderr):
        self._scale, self._names, self._stream = scale, list(names), stream
        self._terminal = stream.isatty()
        self._began = self._spoke = time.monotonic()
        self._over: list[str] = []

    def update(self) -> None:
        """Look at the status files and say what is new."""
        states = {name: status.read(self._scale, name) for name in self._names}
        running = [name for name, state in states.items() if state["outcome"] == "running"]
        over = [name for name, state in states.items() if state["outcome"] in ("ok", "failed")]
        for name in over:
            if name not in self._over:
                self._over.append(name)
                line = f"{name}  {states[name]['outcome']}  {states[name].get('seconds', 0.0):.1f} s"
                self._say(f"[{len(self._over)}/{len(self._names)}] {line}", running)
        if self._terminal:
            self._redraw(running)
        elif time.monotonic() - self._spoke >= _HEARTBEAT:
            self._say(f"[{len(self._over)}/{len(self._names)}]", running)

    def close(self) -> None:
        """Leave the line."""
        if self._terminal:
            self._write("\r\x1b[2K")

    def _say(self, text: str, running: list[str]) -> None:
        self._spoke = time.monotonic()
        if self._terminal:
            self._write(f"\r\x1b[2K{text}\n")
            return
        more = f"; running: {', '.join(running)}" if running else ""
        self._write(f"{text}; {clock(time.monotonic() - self._began)}{more}\n")

    def _redraw(self, running: list[str]) -> None:
        now = ", ".join(running) or "starting"
        text = f"[{len(self._over)}/{len(self._names)}] {clock(time.monotonic() - self._began)} {now}"
        # A line longer than the terminal would wrap, and a wrapped line cannot be redrawn.
        self._write(f"\r\x1b[2K{text[:78]}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def table(rows: Sequence[tuple[str, str, float | None]]) -> str:
    """Return (notebook, outcome, seconds) as aligned text."""
    cells = [("notebook", "outcome", "seconds")]
    cells += [(name, outcome, "" if seconds is None else f"{seconds:.1f}") for name, outcome, seconds in rows]
    first, second, third = (max(len(row[column]) for row in cells) for column in range(3))
    lines = (f"{name:<{first}}  {outcome:<{second}}  {seconds:>{third}}" for name, outcome, seconds in cells)
    return "\n".join(line.rstrip() for line in lines)
