"""What the router embeds once: how it is kept, and what happens when it can't be."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import structlog.testing

from services.router import vector_store
from tests import fake_router_peers

TEXTS = [f"question number {number} of them" for number in range(40)]


class _Embed(fake_router_peers.HashingEmbedder):
    """Counts what it embeds; `turned` is another embedder."""

    def __init__(self, turned: bool = False) -> None:
        self.asked: list[str] = []
        self._sign = -1.0 if turned else 1.0

    async def __call__(self, texts):
        self.asked += texts
        return self._sign * self.embed(texts)


async def _start(path, embed, texts=TEXTS, vectors_id="hashing", **options):
    """One life of a store."""
    store = vector_store.VectorStore(path, vectors_id, embed, **options)
    try:
        return await store.embed(texts)
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "router" / "vectors.sqlite"


async def test_nothing_is_embedded_when_it_was_before(path):
    made = await _start(path, _Embed())
    again = _Embed()
    kept = await _start(path, again)
    assert again.asked == []
    assert np.array_equal(kept, made) and kept.dtype == np.float32
    assert np.abs(made - again.embed(TEXTS)).max() < 1e-3


async def test_only_what_is_new_is_embedded_and_order_holds(path):
    await _start(path, _Embed(), TEXTS[::2])
    embed = _Embed()
    found = await _start(path, embed, [*TEXTS, TEXTS[0], TEXTS[1]])
    assert embed.asked == TEXTS[1::2]
    assert np.array_equal(found[:2], found[-2:])
    assert np.allclose(found[:-2], embed.embed(TEXTS), atol=1e-3)


async def test_everything_is_embedded_when_there_are_more_than_one_part(path):
    texts = [f"text {number}" for number in range(2 * vector_store._AT_ONCE + 1)]
    found = await _start(path, _Embed(), texts)
    again = _Embed()
    assert np.array_equal(await _start(path, again, texts), found)
    assert again.asked == [] and len(found) == len(texts)


async def test_everything_is_embedded_again_when_the_embedder_changed(path):
    made = await _start(path, _Embed())
    other = _Embed(turned=True)
    assert np.array_equal(await _start(path, other, vectors_id="hashing-2"), -made)
    assert other.asked == TEXTS
    # Both are kept: whoever goes back finds the first.
    assert np.array_equal(await _start(path, _Embed()), made)


async def test_file_is_discarded_when_it_is_no_database(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1_000)
    with structlog.testing.capture_logs() as logs:
        await _start(path, _Embed())
    assert [log["event"] for log in logs] == ["damaged vectors discarded"]
    again = _Embed()
    await _start(path, again)
    assert again.asked == []


async def test_file_is_discarded_when_its_pages_are_damaged(path):
    await _start(path, _Embed())
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * (path.stat().st_size - 4_096))
    embed = _Embed()
    with structlog.testing.capture_logs() as logs:
        found = await _start(path, embed)
    assert [log["event"] for log in logs] == ["damaged vectors discarded"]
    assert np.allclose(found, embed.embed(TEXTS), atol=1e-3)
    again = _Embed()
    await _start(path, again)
    assert again.asked == []


async def test_one_text_is_embedded_again_when_bits_of_its_vector_turned(path):
    made = await _start(path, _Embed())
    with sqlite3.connect(path) as file:
        (row, blob) = file.execute("SELECT rowid, vector FROM vectors LIMIT 1").fetchone()
        turned = bytes([blob[10] ^ 1])
        changed = blob[:10] + turned + blob[11:]
        file.execute("UPDATE vectors SET vector = ? WHERE rowid = ?", (changed, row))
    file.close()
    embed = _Embed()
    assert np.array_equal(await _start(path, embed), made)
    assert len(embed.asked) == 1


async def test_texts_are_embedded_when_the_disk_is_full(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    embed = _Embed()
    with structlog.testing.capture_logs() as logs:
        store = vector_store.VectorStore(path, "hashing", embed)
        await store.embed(TEXTS[:1])
        # Every file of this process is as long as it may be.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            first, second = await store.embed(TEXTS), await store.embed(TEXTS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [log["event"] for log in logs] == ["vectors are not kept"]
    assert np.array_equal(first, second) and embed.asked.count(TEXTS[-1]) == 2
    # With space again it keeps them again.
    await store.embed(TEXTS)
    await store.close()
    again = _Embed()
    await _start(path, again)
    assert again.asked == []


async def test_texts_are_embedded_when_the_folder_can_not_be_made(path):
    path.parent.write_text("a file where the folder should be")
    embed = _Embed()
    with structlog.testing.capture_logs() as logs:
        found = await _start(path, embed)
    assert [log["event"] for log in logs] == ["vectors are not kept"]
    assert np.allclose(found, embed.embed(TEXTS), atol=1e-3)


async def test_what_was_written_is_kept_when_the_process_is_killed(path):
    script = f"""
import asyncio, pathlib, os, signal
from services.router import vector_store
from tests.unit.router.test_vector_store import _Embed, TEXTS
store = vector_store.VectorStore(pathlib.Path({str(path)!r}), "hashing", _Embed())
asyncio.run(store.embed(TEXTS))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    embed = _Embed()
    await _start(path, embed)
    assert embed.asked == []


async def test_unused_texts_go_after_a_month_and_used_ones_stay(path):
    await _start(path, _Embed(), today=lambda: 1_000)
    await _start(path, _Embed(), TEXTS[:10], today=lambda: 1_020)
    await _start(path, _Embed(), TEXTS[:10], today=lambda: 1_040)
    embed = _Embed()
    await _start(path, embed, today=lambda: 1_041)
    assert embed.asked == TEXTS[10:]


async def test_texts_stay_when_one_process_used_them_for_long(path):
    day = 1_000
    store = vector_store.VectorStore(path, "hashing", _Embed(), today=lambda: day)
    await store.embed(TEXTS)
    day = 1_100
    await store.close()
    embed = _Embed()
    await _start(path, embed, today=lambda: 1_101)
    assert embed.asked == []


async def test_longest_unused_go_first_when_there_are_too_many(path):
    await _start(path, _Embed(), TEXTS[:20], most_texts=30, today=lambda: 1_000)
    await _start(path, _Embed(), TEXTS[:10], most_texts=30, today=lambda: 1_010)
    await _start(path, _Embed(), TEXTS[20:], most_texts=30, today=lambda: 1_010)
    embed = _Embed()
    await _start(path, embed, [*TEXTS[:10], *TEXTS[20:]], today=lambda: 1_010)
    # 40 were there: down to 27, so of those used on the last day three had to go, too.
    assert embed.asked == TEXTS[:3]
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM vectors").fetchone() == (30,)
    file.close()


async def test_text_is_embedded_again_when_its_vector_was_no_number(path):
    async def spoilt(texts):
        vectors = _Embed().embed(texts)
        vectors[0, 3] = np.nan
        return vectors

    assert not np.isfinite((await _start(path, spoilt))[0]).all()
    embed = _Embed()
    assert np.isfinite(await _start(path, embed)).all()
    assert embed.asked == TEXTS[:1]
