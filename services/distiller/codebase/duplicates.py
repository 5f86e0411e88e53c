"""Near-duplicates among definitions: MinHash signatures (Broder, 1997), compared through LSH."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

_PERMUTATIONS = 128
_SIMILAR = 0.8
"""Least Jaccard similarity of two definitions' shingles that are nearly the same."""
_CANDIDATE = 0.65
"""Where the index puts its threshold: lower, since it misses some just above it."""
_SHINGLE = 4
"""Tokens."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def keep_first(texts: Sequence[str]) -> list[int]:
    """The indices of the texts that are unlike all kept before them, in order.

    Args:
        texts: the ones to keep rather first.
    """
    # Not at the start of a distiller, of which most learn no code: it brings SciPy with it.
    import datasketch

    index = datasketch.MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
    signatures: dict[int, datasketch.MinHash] = {}
    seen: set[str] = set()
    kept: list[int] = []
    blank = datasketch.MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    for number, text in enumerate(texts):
        tokens = _TOKEN.findall(text)
        plain = " ".join(tokens)
        if plain in seen:
            continue
        seen.add(plain)
        signature = blank.copy()
        ends = range(max(1, len(tokens) - _SHINGLE + 1))
        signature.update_batch({" ".join(tokens[at : at + _SHINGLE]).encode() for at in ends})
        near = index.query(signature)
        if any(signature.jaccard(signatures[other]) >= _SIMILAR for other in near):
            continue
        index.insert(number, signature)
        signatures[number] = signature
        kept.append(number)
    return kept
