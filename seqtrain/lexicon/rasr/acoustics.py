"""HMM states of allophones: how many there are, and the emission class of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.state_tying import StateTying

__all__ = ["ChainTable", "HmmStates"]

# In the number of an allophone state the HMM state stands above the allophone's index.
_STATE_SHIFT = 26


class ChainTable(NamedTuple):
    """The chains of HMM states of C allophones, repetitions included, padded to the longest possible length S.

    Attributes:
        sizes: (C,) how many states each has.
        numbers: (C, S) numbers of the allophone states, `index | state << 26`.
        classes: (C, S) their emission classes.
        silence: (C,) bool: whether it is silence, which has transition costs of its own.
    """

    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    classes: NDArray[np.int64]
    silence: NDArray[np.bool_]


class HmmStates:
    """The states of every allophone.

    Args:
        states_per_phone: states with classes of their own; silence has one.
        repetitions: how often each of them stands in the chain, one behind the other; silence stands once.
        silence: number of the phoneme of silence, None if there is none.
    """

    def __init__(
        self,
        inventory: AllophoneInventory,
        tying: StateTying,
        *,
        states_per_phone: int,
        repetitions: int,
        silence: int | None,
    ) -> None:
        self._allophones = inventory.allophones
        self._tying = tying
        chain = np.repeat(np.arange(states_per_phone), repetitions)
        self._silence = np.array([a.phoneme == silence for a in self._allophones], dtype=np.bool_)
        self._sizes = np.where(self._silence, 1, len(chain))
        self._numbers = np.arange(len(self._allophones))[:, None] | chain << _STATE_SHIFT
        self._states = chain.tolist()
        # Looked up when first needed: a lookup table needs to have only what occurs.
        self._classes = np.full(self._numbers.shape, -1)

    def size(self, allophone: int) -> int:
        """How many states the allophone with this index has."""
        return int(self._sizes[allophone])

    def chains(self, allophones: Sequence[int]) -> ChainTable:
        """The states of the allophones with these indices.

        Raises:
            LexiconError: a lookup table has no class of one.
        """
        which = np.array(allophones, dtype=np.int64)
        classes = self._classes[which]
        for index in np.unique(which[classes[:, 0] < 0]).tolist():
            states = self._states[: self.size(index)]
            found = [self._tying.class_of(self._allophones[index], state) for state in states]
            self._classes[index, : len(found)] = found
            classes = self._classes[which]
        return ChainTable(self._sizes[which], self._numbers[which], classes, self._silence[which])
