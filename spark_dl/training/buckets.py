"""How gradients travel: which tensors go together, and which stay sparse. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BUCKET_BYTES", "Piece", "plan_buckets", "stays_sparse"]

#: A bucket is closed once it holds so much. One flat tensor is fastest where it is reduced alone
#: (2 ranks on loopback, 4.8 MB: 1 piece 17 ms, 4 pieces 23 ms, 16 pieces 41 ms; 48 MB: no
#: difference), so small models get one; large ones send their last layers' while the first ones'
#: are computed.
BUCKET_BYTES: Final = 32 * 2**20

_INDEX_BYTES: Final = 8


@dataclass(frozen=True)
class Piece:
    """One tensor of a bucket plan.

    Attributes:
        dtype: name of its dtype; only tensors of one dtype share a bucket.
        size_bytes: its size; `None` where only the running step knows it.
    """

    dtype: str
    size_bytes: int | None


def plan_buckets(
    pieces: Sequence[Piece], *, limit_bytes: int = BUCKET_BYTES
) -> list[tuple[int, ...]]:
    """Return which tensors are reduced together, in the order in which they are.

    The last tensors come first: that is the order in which a backward pass makes gradients, so the
    first bucket can be on its way while the others' gradients are still being computed.

    Args:
        pieces: the tensors, in the order of the model's variables.
        limit_bytes: a bucket takes no further tensor once it holds so much.

    Returns:
        indices of `pieces`, each exactly once; the same on all ranks, for it depends on dtypes and
        shapes only.

    Example:
        >>> plan_buckets([Piece("float32", 8), Piece("float64", 8), Piece("float32", 8)])
        [(2, 0), (1,)]
    """
    done: list[tuple[int, ...]] = []
    filling: dict[str, list[int]] = {}
    held: dict[str, int] = {}
    for index in reversed(range(len(pieces))):
        piece = pieces[index]
        filling.setdefault(piece.dtype, []).append(index)
        held[piece.dtype] = held.get(piece.dtype, 0) + (piece.size_bytes or 0)
        if held[piece.dtype] >= limit_bytes:
            done.append(tuple(filling.pop(piece.dtype)))
            del held[piece.dtype]
    # a bucket can leave once its lowest tensor is there
    return sorted([*done, *map(tuple, filling.values())], key=lambda bucket: -bucket[-1])


def stays_sparse(*, rows: int, row_bytes: int, vocabulary: int) -> bool:
    """Whether the rows of a sparse gradient, gathered from all ranks, are less than a dense one.

    Args:
        rows: rows of the gradient, all ranks together.
        row_bytes: bytes of a row's values.
        vocabulary: rows of the dense tensor.

    Example:
        >>> stays_sparse(rows=128, row_bytes=64, vocabulary=100_000)
        True
        >>> stays_sparse(rows=100_000, row_bytes=64, vocabulary=100_000)
        False
    """
    return rows * (row_bytes + _INDEX_BYTES) < vocabulary * row_bytes
