"""Which of many vectors lie nearest to one: an inverted file over clusters, with half floats.

IVF (Sivic and Zisserman, ICCV 2003), as faiss has it. Clusters are found once there are enough
vectors, and anew when these have become many times more. Knows nothing about cards or threads.
"""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt

from services.router import profile as profiles

Keys = npt.NDArray[np.int64]
_EXACT_VECTORS = 10_000
_GROWTH = 4
"""Times as many vectors are due for other clusters."""
_LISTS_OF_ROOT = 8
"""Clusters for the square root of the vectors that there are: few enough when they are more."""
_LISTS_SEARCHED, _USUAL_COUNT = 96, 256
"""Of clusters, for so many vectors; more for more."""
_TRAINED_ON_EACH = 20
_ROUNDS = 5
_BLOCK = 10_000


class Neighbours:
    """Vectors by key."""

    def __init__(self, dimension: int) -> None:
        """Starts empty, comparing with every vector.

        Args:
            dimension: of all vectors.
        """
        self.dimension = dimension
        half = faiss.ScalarQuantizer.QT_fp16
        every = faiss.IndexScalarQuantizer(dimension, half, faiss.METRIC_INNER_PRODUCT)
        self._index = faiss.IndexIDMap2(every)
        self._most = _EXACT_VECTORS

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def crowded(self) -> bool:
        """Whether `arranged` would be faster."""
        return len(self) > self._most

    def add(self, keys_N: Keys, vectors_N_D: profiles.Vectors) -> None:
        """Adds vectors under keys that are not there yet."""
        _in_this_thread()
        self._index.add_with_ids(np.ascontiguousarray(vectors_N_D, dtype=np.float32), keys_N)

    def remove(self, keys_N: Keys) -> None:
        """Forgets vectors."""
        self._index.remove_ids(keys_N)

    def nearest(self, vector_D: profiles.Vectors, count: int) -> list[int]:
        """Keys of the vectors with the largest inner products, that one first."""
        _in_this_thread()
        wide = None
        if not isinstance(self._index, faiss.IndexIDMap2):
            lists = _LISTS_SEARCHED * max(1, count // _USUAL_COUNT)
            wide = faiss.SearchParametersIVF(nprobe=min(lists, self._index.nlist))
        _, keys_1_N = self._index.search(vector_D[None].astype(np.float32), count, params=wide)
        return [key for key in keys_1_N[0].tolist() if key >= 0]

    def vectors(self, keys_N: Keys) -> profiles.Vectors:
        """What lies under keys, as exact as half floats; shape (keys, dimension).

        Raises:
            RuntimeError: nothing lies under one of them.
        """
        _in_this_thread()
        found_N_D: profiles.Vectors = self._index.reconstruct_batch(keys_N)
        return found_N_D

    def arranged(self) -> Neighbours:
        """The same vectors in clusters that suit their number; this one may be read meanwhile."""
        _in_this_thread()
        made = Neighbours(self.dimension)
        lists = max(1, int(_LISTS_OF_ROOT * len(self) ** 0.5))
        made._index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(self.dimension),
            self.dimension,
            lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # Vectors as they are, not what is left of them beside the cluster's centre.
        )
        made._index.cp.niter = _ROUNDS
        made._index.cp.max_points_per_centroid = _TRAINED_ON_EACH
        made._index.cp.min_points_per_centroid = 1
        made._index.train(self._drawn(lists * _TRAINED_ON_EACH))
        made._index.set_direct_map_type(faiss.DirectMap.Hashtable)
        for keys_N, vectors_N_D in self._blocks():
            made.add(keys_N, vectors_N_D)
        made._most = _GROWTH * len(self)
        return made

    def _drawn(self, count: int) -> profiles.Vectors:
        """Some vectors at random, the same ones every time."""
        rng = np.random.default_rng(0)
        share = min(1.0, count / len(self))
        drawn = [vectors[rng.random(len(vectors)) <= share] for _, vectors in self._blocks()]
        return np.concatenate(drawn)

    def _blocks(self) -> Iterator[tuple[Keys, profiles.Vectors]]:
        if isinstance(self._index, faiss.IndexIDMap2):
            keys = faiss.vector_to_array(self._index.id_map)
            codes = faiss.vector_to_array(faiss.downcast_index(self._index.index).codes)
            yield from self._decoded(keys, codes)
            return
        lists = self._index.invlists
        for number in range(self._index.nlist):
            size = lists.list_size(number)
            if size:
                keys = faiss.rev_swig_ptr(lists.get_ids(number), size)
                codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
                yield from self._decoded(keys, codes)

    def _decoded(
        self, keys_N: Keys, codes: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[Keys, profiles.Vectors]]:
        halves_N_D = codes.view(np.float16).reshape(len(keys_N), self.dimension)
        for start in range(0, len(keys_N), _BLOCK):
            some = slice(start, start + _BLOCK)
            yield keys_N[some].copy(), halves_N_D[some].astype(np.float32)


def _in_this_thread() -> None:
    # OpenMP keeps this for each calling thread; others would spin between calls of microseconds.
    faiss.omp_set_num_threads(1)
