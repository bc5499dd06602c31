"""The progress bar says stage, step and time left."""

import io

from DiffusionMBIRLib import monitor as module
from DiffusionMBIRLib.monitor import Console


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_time_left_follows_the_pace_and_a_resumed_run_counts_only_its_own_steps(monkeypatch):
    clock, stream = Clock(), Terminal()
    monkeypatch.setattr(module, "time", clock)
    bar = Console(stream)
    for done in range(1, 5):
        clock.now += 2.0
        bar.tick("first", done, 4)
    assert "first              [############################] 4/4  8.0 s\n" in stream.getvalue()
    for done in (50, 60, 70):  # taken up at 50 of 100
        clock.now += 5.0
        bar.tick("second", done, 100, loss=0.25)
    assert stream.getvalue().endswith("70/100  15 s left  loss 0.25")


def test_a_log_file_gets_few_lines(monkeypatch):
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(module, "time", clock)
    bar = Console(stream)
    for done in range(1, 101):
        clock.now += 1.0
        bar.tick("work", done, 100)
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 15
    assert "100/100" in lines[-1]
    assert "\r" not in stream.getvalue()
