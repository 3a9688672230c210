"""Randomness keyed by what it is for, so that it has no state to save.

Every random number in nstudent is a pure function of a key such as ``(seed, "student", round, draw)``. A run that
was killed and resumed, or that loads its images with another number of workers, therefore sees the same numbers.
Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
"""

import hashlib

import numpy as np

Key = tuple[int | str, ...]


def _digest(key: Key) -> int:
    # repr() keeps (1, "2") and ("1", 2) apart; numpy's integers have a repr of their own.
    key = tuple(part if isinstance(part, str) else int(part) for part in key)
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=16).digest(), "little")


def generator(*key: int | str) -> np.random.Generator:
    """A numpy generator whose stream depends on ``key`` alone."""
    return np.random.Generator(np.random.Philox(key=_digest(key)))


def seed(*key: int | str) -> int:
    """A 63-bit seed that depends on ``key`` alone, for libraries that take an integer."""
    return _digest(key) & (2**63 - 1)
