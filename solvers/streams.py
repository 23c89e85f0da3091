"""Seeds of the solvers' random streams, all derived here.

One seed is given to a call, and a further one is derived at each level below it:

========= =========================== ================================================
level     seed                        used by
========= =========================== ================================================
problem   :func:`spawn_seeds`         each problem of a sequence, each run of a sampler
trial     :func:`trial_seed`          each penalty strength of a penalised backend
read      :func:`read_words`          each program of a GPU launch
backend   :func:`bounded_seed`        a library that only accepts small integers
========= =========================== ================================================

Each level hashes the seed of the level above with NumPy's ``SeedSequence``, so that words
which are equal at two levels still give two streams. A solver seeds one generator with the
seed of its own level (``numpy.random.default_rng``, or :func:`solvers.anneal.rng.seed_state`).
Numbers drawn for a seed are part of the interface: a derivation that exists does not change, and
a new one gets a level, or a key, that no other has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.request import checked_seed


def spawn_seeds(seed: int | None, count: int) -> list[int | None]:
    """Derive one independent seed per problem; None stays None.

    Raises
    ------
    OptionError
        If the seed is not a non-negative integer.
    """
    if (seed := checked_seed(seed)) is None:
        return [None] * count
    return [int(word) for word in _words(seed, count)]


def trial_seed(seed: int | None, number: int) -> int | None:
    """Derive the seed of trial ``number`` of one problem; None stays None."""
    return None if seed is None else int(_words([seed, number], 1)[0])


def read_words(seed: int | None, count: int) -> npt.NDArray[np.uint32]:
    """Derive one word per read, shape (count,); fresh ones if the seed is None."""
    return _words(seed, count)


def bounded_seed(seed: int, limit: int) -> int:
    """Bring a seed into ``0 … limit - 1`` for a library that takes no larger one."""
    return seed % limit


def _words(entropy: int | list[int] | None, count: int) -> npt.NDArray[np.uint32]:
    words = np.random.SeedSequence(entropy).generate_state(count, np.uint32)
    return np.asarray(words, dtype=np.uint32)
