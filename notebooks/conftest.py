"""Patience for `pytest --nbval-lax`: on a loaded machine a cell's last output can come later than nbval waits for it."""

from nbval.plugin import IPyNbCell

# Seconds; nbval waits 5, without an option, and gives up a cell that has done its work.
OUTPUT_TIMEOUT = 120


def pytest_itemcollected(item):
    """Let a cell wait for its output as long as a busy machine may need."""
    if isinstance(item, IPyNbCell):
        item.output_timeout = OUTPUT_TIMEOUT
