"""Factors of many modules as few tensors, so that a layer is computed on without a loop over them.

Modules of one shape lie side by side: a stack is (modules, in, rank) and (modules, rank, out).
Factors that are handed out are views of a stack; a stack that was handed out is never written to.
"""

from __future__ import annotations

import dataclasses
import types
import zlib
from collections.abc import Iterable, Mapping

import torch

from shared import errors
from shared.hierarchy import weights


@dataclasses.dataclass(frozen=True)
class Group:
    """Modules of one shape, in the order in which they lie in a stack."""

    shape: weights.Shape
    paths: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Stack:
    """The factors of a group."""

    a: torch.Tensor
    """(M, in_features, rank), float32."""
    b: torch.Tensor
    """(M, rank, out_features), float32."""

    @property
    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B, for what is done to each alike."""
        return self.a, self.b

    def clone(self) -> Stack:
        """One that may be written to."""
        return Stack(self.a.clone(), self.b.clone())


class Layout:
    """Which module lies where; says nothing of values."""

    def __init__(self, shapes: Mapping[str, weights.Shape], rank: int) -> None:
        """Lays the modules out.

        Raises:
            errors.InvalidInputError: there are no modules, or a side or the rank is below 1.
        """
        sides = [side for shape in shapes.values() for side in dataclasses.astuple(shape)]
        if not shapes or min([rank, *sides]) < 1:
            raise errors.InvalidInputError(
                f"a layer needs modules, with sides and a rank of at least 1; got rank {rank} and "
                f"{len(shapes)} modules"
            )
        self.rank = rank
        self.paths = tuple(shapes)
        together: dict[weights.Shape, list[str]] = {}
        for path, shape in shapes.items():
            together.setdefault(shape, []).append(path)
        self.groups = tuple(Group(shape, tuple(paths)) for shape, paths in together.items())
        self._at = {
            path: (number, row)
            for number, group in enumerate(self.groups)
            for row, path in enumerate(group.paths)
        }

    def at(self, path: str) -> tuple[int, int]:
        """Number of the stack and row in it.

        Raises:
            errors.NotFoundError: the layer has no such module.
        """
        try:
            return self._at[path]
        except KeyError:
            raise errors.NotFoundError(
                f"the layer has no module {path!r}; it adapts {len(self.paths)}, such as "
                f"{self.paths[0]!r}"
            ) from None

    def zeros(self) -> list[Stack]:
        """Stacks of zeros."""
        return [
            Stack(
                torch.zeros(len(group.paths), group.shape.in_features, self.rank),
                torch.zeros(len(group.paths), self.rank, group.shape.out_features),
            )
            for group in self.groups
        ]

    def start(self, name: str, seed: int) -> list[Stack]:
        """Start values of LoRA (Hu et al. 2022): A Kaiming-uniform (gain of a = sqrt 5), B zero.

        A module's values depend on the seed, the name and its path alone, so that layers that share
        a seed are independent of one another, and a module's start is the same whatever its
        neighbours.
        """
        stacks = self.zeros()
        for group, stack in zip(self.groups, stacks, strict=True):
            bound = group.shape.in_features**-0.5
            for row, path in enumerate(group.paths):
                source = zlib.crc32(f"{seed}/{name}/{path}".encode())
                generator = torch.Generator().manual_seed(source)
                stack.a[row].uniform_(-bound, bound, generator=generator)
        return stacks

    def pack(self, given: Mapping[str, weights.Factors]) -> list[Stack]:
        """Stacks of what is given; modules that are not are zero.

        Raises:
            errors.NotFoundError: a module that the layer has not.
            errors.InvalidInputError: another shape or rank than the layer's.
        """
        for path, factors in given.items():
            number, _ = self.at(path)
            shape = self.groups[number].shape
            self.check(path, factors, shape, self.rank)
        stacks = []
        for group in self.groups:
            if all(path in given for path in group.paths):
                a = torch.stack([given[path].a.detach().float() for path in group.paths])
                b = torch.stack([given[path].b.detach().float() for path in group.paths])
            else:
                a = torch.zeros(len(group.paths), group.shape.in_features, self.rank)
                b = torch.zeros(len(group.paths), self.rank, group.shape.out_features)
                for row, path in enumerate(group.paths):
                    if path in given:
                        a[row], b[row] = given[path].a.detach(), given[path].b.detach()
            stacks.append(Stack(a, b))
        return stacks

    def unpack(self, stacks: Iterable[Stack]) -> Mapping[str, weights.Factors]:
        """Read-only, in the order of the modules; the tensors are views."""
        held = list(stacks)
        return types.MappingProxyType(
            {
                path: weights.Factors(held[number].a[row], held[number].b[row])
                for path, (number, row) in ((path, self._at[path]) for path in self.paths)
            }
        )

    @staticmethod
    def check(path: str, factors: weights.Factors, shape: weights.Shape, rank: int) -> None:
        """Holds factors against a shape.

        Raises:
            errors.InvalidInputError: they differ.
        """
        found = tuple(factors.a.shape), tuple(factors.b.shape)
        if found != ((shape.in_features, rank), (rank, shape.out_features)):
            raise errors.InvalidInputError(
                f"{path}: A {found[0]} and B {found[1]} do not fit a module of "
                f"{shape.in_features} x {shape.out_features} at rank {rank}"
            )
