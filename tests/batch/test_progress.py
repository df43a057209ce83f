import io

import pytest

from feddiff.experiments import progress, status


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _show(stream, steps):
    shown = progress.Progress("quick", ["10_a", "11_b"], stream)
    for outcomes in steps:
        for name, outcome in outcomes.items():
            status.write("quick", name, {"outcome": outcome, "seconds": 1.25})
        shown.update()
    shown.close()
    return stream.getvalue()


STEPS = [{}, {"10_a": "running"}, {"10_a": "running"}, {"10_a": "ok", "11_b": "running"}, {"11_b": "failed"}]


def test_a_log_gets_one_line_for_each_finished_job(toys):
    lines = _show(io.StringIO(), STEPS).splitlines()
    assert lines == ["[1/2] 10_a  ok  1.2 s; 0:00; running: 11_b", "[2/2] 11_b  failed  1.2 s; 0:00"]


def test_a_long_wait_in_a_log_is_broken_now_and_then(toys, monkeypatch):
    monkeypatch.setattr(progress, "_HEARTBEAT", 0.0)
    assert _show(io.StringIO(), [{"10_a": "running"}]) == "[0/2]; 0:00; running: 10_a\n"


def test_a_terminal_gets_one_line_that_is_redrawn(toys):
    shown = _show(Terminal(), STEPS)
    assert shown.count("\n") == 2
    assert "\r\x1b[2K[1/2] 0:00 11_b" in shown
    assert shown.endswith("\r\x1b[2K")
    assert max(len(part) for part in _show(Terminal(), [{"10_a" + "x" * 200: "running"}]).split("\r")) <= 90


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3700, "1:01:40")])
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_the_table_is_aligned():
    assert progress.table([("10_a", "ok", 3.14159), ("90_claims", "not run", None)]).splitlines() == [
        "notebook   outcome  seconds", "10_a       ok           3.1", "90_claims  not run",
    ]
