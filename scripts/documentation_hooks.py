"""What mkdocs does besides: files of the project outside docs/ are shown, or linked where they are.

On a code host the same links lead to the same files, since they are relative there.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from mkdocs.structure import files as mkdocs_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PICTURE = re.compile(r"\((?:\.\./)+(benchmarks/results/[\w-]+\.png)\)")
_ELSEWHERE = re.compile(r"\((?:\.\./)+((?:README|CONTRIBUTING|CHANGELOG)\.md|benchmarks/|plugins/)")


def on_files(files: mkdocs_files.Files, config: Any) -> mkdocs_files.Files:
    """Adds the plots of the benchmarks."""
    for path in sorted((ROOT / "benchmarks/results").glob("*.png")):
        files.append(
            mkdocs_files.File.generated(
                config, f"benchmarks/results/{path.name}", abs_src_path=str(path)
            )
        )
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Points links at what was added, and at the code host for all else."""
    up = "../" * page.file.src_uri.count("/")
    markdown = _PICTURE.sub(rf"({up}\1)", markdown)
    return _ELSEWHERE.sub(rf"({config['repo_url']}/blob/main/\1", markdown)
