"""Random streams: each depends only on what it is named by, so that any subset of a night has the same pixels."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is used for; its number is part of the seed, so never renumber."""

    OPTICS = 1
    CHIP = 2
    PIXEL_FLAT = 3
    FRAME = 4
    FIELD = 5


def stream(use: Stream, *names: int) -> np.random.Generator:
    """Return the generator of a use and the numbers that name it (seed, channel, night, exposure)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([int(use), *names])))
