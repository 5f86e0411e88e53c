"""Repositories made for a test."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Mapping

from services.distiller.codebase import extraction, repository
from shared import codebase_settings


def git(root: pathlib.Path, *arguments: str) -> None:
    who = [
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.com",
        "-c",
        "protocol.file.allow=always",
    ]
    subprocess.run(["git", *who, "-C", str(root), *arguments], check=True, capture_output=True)


def repo(root: pathlib.Path, files: Mapping[str, str | bytes]) -> repository.Repository:
    """A repository of one commit with these files."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q")
    write(root, files)
    git(root, "add", "-A", "-f")
    git(root, "commit", "-q", "--allow-empty", "-m", "All")
    return repository.Repository.open(root)


def write(root: pathlib.Path, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        full = root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(content.encode() if isinstance(content, str) else content)


def extract(
    root: pathlib.Path, files: Mapping[str, str | bytes], **settings: object
) -> extraction.Extraction:
    chosen = codebase_settings.Codebase.model_validate(settings)
    return extraction.extract(repo(root, files), chosen)


def reasons(found: extraction.Extraction) -> dict[str, str]:
    return {one.path: one.reason for one in found.skipped}
