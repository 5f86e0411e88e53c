"""The lessons of a repository in the words of `code_bases`, from the generator that makes them."""

from __future__ import annotations

import asyncio
import pathlib

from services.distiller import code_bases, distillation
from services.distiller.codebase import dataset_folder, generator


class CodeLessons:
    """Has lessons made."""

    def __init__(self, made_by: generator.DatasetGenerator) -> None:
        """Takes what makes them."""
        self._generator = made_by

    async def teach(
        self, task_id: str, path: pathlib.Path, progress: distillation.ProgressCallback
    ) -> code_bases.Lessons:
        """Makes the lessons of the repository in a folder; see `code_bases.Teach`."""
        over = False

        async def tell(share: float, detail: str) -> None:
            if over:
                # Told from the thread that reads files, which goes on until somebody stops it.
                raise _OverError
            await progress(share, detail)

        try:
            made = await self._generator.generate(path, tell, task_id)
        finally:
            over = True
        card = made.card
        return code_bases.Lessons(
            samples=made.samples,
            teacher=", ".join(sorted({sample.teacher for sample in made.samples})),
            commit_id=card.commit,
            licence=card.licence,
            files=card.files,
            lines=card.lines,
            chunks=card.definitions,
            removed=dict(card.removed),
            skipped=dict(card.skipped),
            rejected=dict(card.rejected),
            files_to_keep=await asyncio.to_thread(dataset_folder.files, made),
        )


class _OverError(Exception):
    """Nobody wants the lessons any more."""
