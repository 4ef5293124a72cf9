"""Randomness that is a pure function of a few integers, so that resumed and distributed runs see the same numbers."""

import torch

_MASK = (1 << 64) - 1


def mix(*keys: int) -> int:
    """Hash integers to one 63-bit seed (splitmix64): nearby keys give unrelated seeds."""
    state = 0
    for key in keys:
        state = (state ^ (int(key) & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def generator(*keys: int) -> torch.Generator:
    """A CPU generator whose numbers depend on the integer keys alone, in their order."""
    return torch.Generator().manual_seed(mix(*keys))
