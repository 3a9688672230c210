"""Functions of the fraction of a training that is done: 0 at its first step, 1 at its end."""

import math


def sigmoid_ramp(done: float, length: float) -> float:
    """``exp(-5 (1 - t)^2)``, t from 0 to 1 over the first ``length`` of training (Tarvainen & Valpola, 1703.01780)."""
    t = 1.0 if length <= 0 else min(1.0, done / length)
    return math.exp(-5.0 * (1.0 - t) ** 2)


def linear_ramp(done: float, begins: float, full: float) -> float:
    """0 until ``begins``, from there in a straight line to 1 at ``full``, both fractions of the training."""
    if done >= full:
        return 1.0
    return max(0.0, (done - begins) / (full - begins))
