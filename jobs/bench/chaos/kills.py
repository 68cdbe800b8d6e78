"""SIGKILL of the command, a worker, the raylet or the GCS in mid-work: a sentence, nothing alive, the same bytes."""

from __future__ import annotations

import signal

from numpy.random import Generator

from jobs.bench.chaos.watched import End, Running

ALIVE_S = 10.0
"""Time after which nothing may be alive of a command that was killed, or has lost its raylet or GCS."""


def strike(running: Running, rng: Generator, whole_s: float, *, with_ray: bool) -> End:
    """Kill something at a moment drawn from the time that the command takes undisturbed, once it is there to be hit."""
    kind = str(rng.choice(["command", "worker", "raylet", "GCS"])) if with_ray else "command"
    moment_s = float(rng.uniform(0.2, whole_s))
    running.wait_for(lambda _: _.age_s > moment_s)
    if kind == "command":
        return running.strike(signal.SIGKILL)
    running.wait_for(lambda _: bool(_.pids(kind)))
    return running.strike(signal.SIGKILL, kind)


def complaints(end: End) -> list[str]:
    """All that is wrong with how a command took it; one that lost a worker goes on by itself, or says what is lost."""
    if end.status in (0, -signal.SIGKILL):
        return []
    wrong = [] if end.status == 1 and "error: " in end.last_line else [f"status {end.status}, {end.last_line!r}"]
    wrong += [] if "Traceback" not in end.output else ["a traceback"]
    return wrong + ([] if end.gone_s - end.ended_s < ALIVE_S else [f"alive after {end.gone_s:.0f} s"])
