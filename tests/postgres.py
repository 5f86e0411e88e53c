"""A PostgreSQL server for the tests, where its programs are on this machine."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/bin")
_USER = "postgres"


def programs() -> pathlib.Path | None:
    """The folder of `initdb` and `pg_ctl`; None where they are not installed."""
    if found := shutil.which("initdb"):
        return pathlib.Path(found).parent
    folders = (pathlib.Path(path) for place in _PLACES for path in sorted(glob.glob(place)))
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def running(folder_of_programs: pathlib.Path, port: int = 0) -> Iterator[str]:
    """A server on a socket of its own, or on a port of loopback.

    Yields:
        The SQLAlchemy URL of its database.
    """
    root = pathlib.Path(tempfile.mkdtemp(prefix="postgres-"))
    data = root / "data"
    # The server refuses to run as root.
    user = _USER if os.geteuid() == 0 else None
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(root, entry.pw_uid, entry.pw_gid)

    def call(program: str, *arguments: str) -> None:
        command = [str(folder_of_programs / program), "-D", str(data), *arguments]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, user=user, cwd=root, stdout=quiet, stderr=quiet)

    try:
        call("initdb", "-U", _USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        listening = f"-c listen_addresses=127.0.0.1 -p {port}" if port else "-c listen_addresses="
        options = f"-k {root} {listening} -c fsync=off"
        call("pg_ctl", "-w", "-o", options, "-l", str(root / "log"), "start")
        try:
            if port:
                yield f"postgresql+psycopg://{_USER}@127.0.0.1:{port}/postgres"
            else:
                yield f"postgresql+psycopg://{_USER}@/postgres?host={root}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root)
