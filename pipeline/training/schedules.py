"""Functions of the fraction of a training that is done: 0 at its first step, 1 at its end."""

import math


def mixing_height(schedule: str, done: float) -> float:
    """Share of its full probability that CutMix or MixUp has.

    ``late`` keeps the first half of training free of it, which is how the contest entry behind this project trained.
    """
    if schedule == "late":
        return float(done >= 0.5)
    if schedule == "early":
        return float(done < 0.5)
    if schedule == "ramp":
        return done
    return 1.0


def sigmoid_ramp(done: float, length: float) -> float:
    """``exp(-5 (1 - t)^2)``, t from 0 to 1 over the first ``length`` of training (Tarvainen & Valpola, 1703.01780)."""
    t = 1.0 if length <= 0 else min(1.0, done / length)
    return math.exp(-5.0 * (1.0 - t) ** 2)
