"""`python -m tests.contract.trainer_process ADDRESS FOLDER`: a trainer that trains nothing.

The service and its server are the real ones; the work is to write drafts into FOLDER, and to wait
while there is a file `hold-train` or `hold-prove`. FOLDER/log tells what was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pathlib
import signal
import sys
from typing import Any

import grpc

from tests.contract import addresses, serving

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE_S = 120


class TrainerProcess:
    """Such a process, as a test starts and kills it."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir()
        self.address, self._folder = addresses.free_address(), folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self._folder / "stderr").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.contract.trainer_process"),
                *(self.address, str(self._folder)),
                cwd=ROOT,
                env={**os.environ, "GRPC_VERBOSITY": "NONE"},
                stderr=log,
            )
        async with grpc.aio.insecure_channel(self.address) as channel:
            await serving.until_served(channel, self._process, PATIENCE_S)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(process.wait(), PATIENCE_S)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def forget(self) -> None:
        """Holds nothing, and has done nothing yet."""
        self.let_go()
        (self._folder / "log").unlink(missing_ok=True)

    def hold(self, what: str) -> None:
        (self._folder / f"hold-{what}").touch()

    def let_go(self) -> None:
        for held in self._folder.glob("hold-*"):
            held.unlink()

    @property
    def done(self) -> list[str]:
        """`train RUN` and `prove RUN`, each when it was begun."""
        log = self._folder / "log"
        return log.read_text().splitlines() if log.exists() else []


async def main(address: str, folder: pathlib.Path) -> None:
    """Serves until a signal."""
    from services.trainer import gate, service, trainer, workshop
    from shared import errors
    from shared.rpc import server as rpc

    class Shop:
        async def train(self, order: trainer.Order, report: Any) -> workshop.Trained:
            kept, draft = (
                folder / f"{order.task_id}.draft",
                f"{order.task_id} by {address}".encode(),
            )
            if not kept.exists():
                await self._begin("train", order.task_id, report)
                kept.write_bytes(draft)
            digest = hashlib.sha256(draft).hexdigest()
            return workshop.Trained(digest, len(draft), 40, 0.01, 1.0, 1.5)

        async def prove(
            self, task_id: str, dataset: str, draft: str, triggers: Any, report: Any, *more: Any
        ) -> workshop.Proved:
            await self._begin("prove", task_id, report)
            with (folder / f"{task_id}.draft").open("rb") as kept:
                if hashlib.file_digest(kept, "sha256").hexdigest() != draft:
                    raise errors.InvalidInputError("another draft")
            row = gate.Row("held_out", 3, 4, 0.5)
            table = (workshop.GateRow(row.name, row.right, row.asked, row.required, row.passed),)
            card = hashlib.sha256(f"card of {draft}".encode()).hexdigest()
            return workshop.Proved(True, table, card, 1000, 0.5, f"signed {task_id}")

        async def _begin(self, what: str, run_id: str, report: Any) -> None:
            with (folder / "log").open("a") as log:
                log.write(f"{what} {run_id}\n")
            await report(0.5, f"{what} half done")
            while (folder / f"hold-{what}").exists():
                await asyncio.sleep(0.02)

    shop: Any = Shop()
    servicer = service.TrainerService(shop, seed=0)
    server = rpc.Server([servicer.add_to], address)
    await server.start()
    await rpc.until_signal()
    await servicer.close()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], pathlib.Path(sys.argv[2])))
