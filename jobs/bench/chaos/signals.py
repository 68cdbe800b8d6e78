"""SIGTERM and SIGINT at any moment: the status, the sentence, nothing left alive, and the same bytes in the end."""

from __future__ import annotations

import signal

from numpy.random import Generator

from jobs.bench.chaos.watched import End, Running

ALIVE_S = 10.0
"""Time after which nothing may be alive."""


def strike(running: Running, rng: Generator, whole_s: float, *, with_ray: bool) -> End:
    """Send one of the two at a moment drawn from the time that the command takes undisturbed."""
    number = int(rng.choice([signal.SIGTERM, signal.SIGINT]))
    moment_s = float(rng.uniform(0.2, whole_s))
    running.wait_for(lambda _: _.age_s > moment_s)
    return running.strike(number)


def complaints(end: End) -> list[str]:
    """All that is wrong with how a command was stopped; nothing where it had come to its end before."""
    if end.status == 0:
        return []
    wrong = [] if end.status in (128 + signal.SIGTERM, 128 + signal.SIGINT) else [f"status {end.status}"]
    wrong += [] if "stopped by SIG" in end.last_line else [f"last line {end.last_line!r}"]
    wrong += [] if "Traceback" not in end.output else ["a traceback"]
    return wrong + ([] if end.gone_s < ALIVE_S else [f"alive after {end.gone_s:.0f} s"])
