"""Channel ids and the ledger of what is tied and what is frozen.

Every index of every channel dimension of a tensor carries the id of a *channel*. A label is the array of ids of one
dimension; ``None`` stands for a dimension that holds no channels (batch, height, width). Ids that live and die
together are *tied*; ids that no plan may remove are *frozen*. Both are only noted while a network is traced and are
resolved once, in :meth:`Channels.components`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
Label: TypeAlias = Ids | None
Labels: TypeAlias = tuple[Label, ...]


@dataclass(frozen=True)
class Freeze:
    """Why some channels may not be removed, and in which module and line of source that was seen."""

    ids: Ids
    module: str
    reason: str
    place: str = ""


@dataclass
class Channels:
    """The ledger of one analysis: ids handed out, ties between them, freezes with their reasons."""

    count: int = 0
    freezes: list[Freeze] = field(default_factory=list)
    _left: list[Ids] = field(default_factory=list)
    _right: list[Ids] = field(default_factory=list)

    def new(self, size: int) -> Ids:
        """Hand out `size` fresh ids."""
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return ids

    def tie(self, left: Ids, right: Ids) -> None:
        """Note that the channels at the same places of two arrays (broadcast together) live and die together."""
        if left is not right:
            left, right = np.broadcast_arrays(left, right)
            self._left.append(left.ravel())
            self._right.append(right.ravel())

    def freeze(self, ids: Ids, module: str, reason: str, place: str = "") -> None:
        """Note that these channels may not be removed, with the reason and the file and line that show it.

        Args:
            ids: the channels.
            module: where they are, for the report.
            reason: why, in words a user reads.
            place: file and line, if they are known.
        """
        if ids.size:
            self.freezes.append(Freeze(ids.ravel(), module, reason, place))

    def mark(self) -> tuple[int, int, int]:
        """A point to come back to with :meth:`forget_since`."""
        return self.count, len(self.freezes), len(self._left)

    def forget_since(self, mark: tuple[int, int, int]) -> None:
        """Forget what was noted since a mark: a run that broke off half-way says nothing."""
        self.count = mark[0]
        del self.freezes[mark[1] :], self._left[mark[2] :], self._right[mark[2] :]

    def components(self) -> Ids:
        """Map every id to its component: the smallest id it is tied to."""
        if not self._left:
            return np.arange(self.count, dtype=np.int64)
        return connected(self.count, np.concatenate(self._left), np.concatenate(self._right))


def connected(count: int, left: Ids, right: Ids) -> Ids:
    """Connected components of the graph with nodes ``0..count-1`` and edges ``left[i] - right[i]``.

    Returns the smallest node of each node's component. Edges pull the larger root to the smaller one, then paths are
    halved until they are flat; both in whole arrays, so a network of a million ids takes a fraction of a second.

    Args:
        count: number of nodes.
        left: one end of each edge (E).
        right: the other end (E).

    >>> connected(5, np.array([0, 3]), np.array([2, 4]))
    array([0, 1, 0, 3, 3])
    """
    root = np.arange(count, dtype=np.int64)
    while left.size:
        a, b = root[left], root[right]
        apart = a != b
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        low, high = np.minimum(a, b), np.maximum(a, b)
        np.minimum.at(root, high, low)
        while not np.array_equal(flat := root[root], root):
            root = flat
    return root
