"""Channel ids, and the record of which are tied and which are frozen.

Every index of every channel dimension of a tensor carries the id of a *channel*. A label is the array of ids of one
dimension; ``None`` stands for a dimension that holds no channels (batch, height, width). Ids that are kept or removed
together are *tied*; ids that no plan may remove are *frozen*. Both are only recorded while a network is traced and are
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
    """Why some channels may not be removed, and the module and source line that show it."""

    ids: Ids
    module: str
    reason: str
    source_line: str = ""


@dataclass
class Channels:
    """The channel ids of one analysis, the ties between them, and freezes with their reasons."""

    count: int = 0
    freezes: list[Freeze] = field(default_factory=list)
    _left: list[Ids] = field(default_factory=list)
    _right: list[Ids] = field(default_factory=list)

    def new(self, size: int) -> Ids:
        """Allocate `size` new ids."""
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return ids

    def tie(self, left: Ids, right: Ids) -> None:
        """Tie channels at the same positions of two arrays (broadcast together): they are kept or removed together."""
        if left is not right:
            left, right = np.broadcast_arrays(left, right)
            self._left.append(left.ravel())
            self._right.append(right.ravel())

    def freeze(self, ids: Ids, module: str, reason: str, source_line: str = "") -> None:
        """Record that these channels may not be removed.

        Args:
            ids: the channels.
            module: the module they belong to, for the report.
            reason: why, in words for the user.
            source_line: file and line that show it, if known.
        """
        if ids.size:
            self.freezes.append(Freeze(ids.ravel(), module, reason, source_line))

    def mark(self) -> tuple[int, int, int]:
        """Return the current state, for :meth:`forget_since`."""
        return self.count, len(self.freezes), len(self._left)

    def forget_since(self, mark: tuple[int, int, int]) -> None:
        """Discard everything recorded since a mark: a run that failed half-way proves nothing."""
        self.count = mark[0]
        del self.freezes[mark[1] :], self._left[mark[2] :], self._right[mark[2] :]

    def components(self) -> Ids:
        """Map every id to its component: the smallest id it is tied to."""
        if not self._left:
            return np.arange(self.count, dtype=np.int64)
        return connected(self.count, np.concatenate(self._left), np.concatenate(self._right))


def connected(count: int, left: Ids, right: Ids) -> Ids:
    """Connected components of the graph with nodes ``0..count-1`` and edges ``left[i] - right[i]``.

    Returns the smallest node of each node's component. Edges link the larger root to the smaller one, then paths are
    halved until they are flat; both steps are vectorised, so a network of a million ids takes a fraction of a second.

    Args:
        count: number of nodes.
        left: one node of each edge (E).
        right: the other node of each edge (E).

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
