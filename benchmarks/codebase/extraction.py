"""How fast a repository is read, in how much memory, and whether a planted secret gets through.

The repository is extracted in a process of its own, pinned to one core, so that its peak of memory
is its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks import results
from benchmarks.codebase import planted, synthetic
from services.distiller.codebase import chunks, extraction, repository
from shared import codebase_settings

LINES = 100_000
_LEAST_KINDS = 20
_SEED = 1


def rows() -> list[results.Row]:
    """`extract_100k_lines_s`, `extract_peak_mb` and `secrets_leaked`."""
    return [*speed(), secrets_leaked()]


def speed() -> list[results.Row]:
    """Seconds of one core and peak memory of one extraction of a synthetic repository."""
    with tempfile.TemporaryDirectory() as folder:
        lines = synthetic.make(pathlib.Path(folder), LINES)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.codebase.extraction", folder],
            capture_output=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    told = json.loads(done.stdout)
    note = (
        f"{lines:,} lines, {told['files']:,} files, {told['chunks']:,} chunks,"
        f" {told['duplicates']:,} near-duplicates; time of one core, which"
        f" took {told['wall_s']:.1f} s beside what else ran"
    )
    return [
        results.Row("extract_100k_lines_s", told["seconds"], "s", most=60, note=note),
        results.Row("extract_peak_mb", told["peak_mb"], "MB", most=500, note="whole process"),
    ]


def secrets_leaked() -> results.Row:
    """How many planted secrets stand in any text of any chunk, one of each kind in one file."""
    secrets = planted.planted(_SEED)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for number, one in enumerate(secrets):
            path = root / f"app/module_{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(with_secret(number, one), encoding="utf-8")
        synthetic.commit(root)
        found = extraction.extract(repository.Repository.open(root), codebase_settings.Codebase())
    whole = "\n".join(text_of(chunk) for chunk in found.chunks)
    whole += "\n".join(str(one) for one in (*found.removed, *found.skipped))
    leaked = [one.kind for one in secrets if one.leaked(whole)]
    seen = len({chunk.path for chunk in found.chunks})
    if seen < len(secrets) or len(secrets) < _LEAST_KINDS:
        return results.Row("secrets_leaked", None, "", note=f"only {seen} files gave a chunk")
    note = f"of {len(secrets)} kinds" + (f": {', '.join(leaked)}" if leaked else "")
    return results.Row("secrets_leaked", len(leaked), "secrets", most=0, note=note)


def with_secret(number: int, one: planted.Planted) -> str:
    """A Python module with a function that holds the secret, and a call of it."""
    code = "\n    ".join(one.code.split("\n")) if "pem" not in one.code else one.code
    return (
        f"def step_{number}(session):\n"
        f'    """Runs step {number} of the {one.kind} job."""\n'
        f"    {code}\n"
        f"    return session.finish({number})\n\n\n"
        f"def run_{number}(session):\n"
        f"    step_{number}(session)  {_beside(one)}\n"
        f"    return session.close_{number}()\n"
    )


def _beside(one: planted.Planted) -> str:
    """The same line once more in a comment, where it will be a call site."""
    return "" if "\n" in one.code else f"# {one.code.removeprefix('# ')}"


def text_of(chunk: chunks.Chunk) -> str:
    """All texts of a chunk."""
    texts = (chunk.text, chunk.signature, chunk.docstring, chunk.body, chunk.path, chunk.symbol)
    return "\n".join([*texts, *chunk.imports, *chunk.call_sites, *chunk.tests])


def _of_children_s() -> float:
    """Of git."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measure(root: pathlib.Path) -> dict[str, float]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started, computed = time.perf_counter(), time.process_time()
    found = extraction.extract(repository.Repository.open(root), codebase_settings.Codebase())
    wall_s = time.perf_counter() - started
    seconds = time.process_time() - computed + _of_children_s()
    # Not `ru_maxrss`, which begins at the peak of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return {
        "seconds": seconds,
        "wall_s": wall_s,
        "peak_mb": peak,
        "files": found.files,
        "chunks": len(found.chunks),
        "duplicates": found.duplicates,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(pathlib.Path(sys.argv[1]))))
