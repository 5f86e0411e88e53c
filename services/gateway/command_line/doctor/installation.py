"""Python, its packages, and the models that come with the project; without loading any of them."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping

from services.gateway.command_line.doctor import findings
from shared import errors
from shared import settings as config
from shared.models import files

_PYTHON = (3, 11)
_SETUP = "run `make setup`"
_NAMED = 5
"""Packages that one sentence names."""
_EMBEDDED = "embedded"


def python() -> Iterator[findings.Finding]:
    """Whether it is the version that everything was tested with."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == _PYTHON:
        yield findings.ok("python", f"{found} at {sys.executable}")
    else:
        wanted = ".".join(map(str, _PYTHON))
        yield findings.error(
            "python", f"{found} at {sys.executable}; {wanted} is needed", f"install it and {_SETUP}"
        )


def packages(lock: pathlib.Path) -> Iterator[findings.Finding]:
    """Whether what is installed is what the lock names.

    Args:
        lock: lines such as `name==1.0`; with an installed package there is none.
    """
    if not lock.is_file():
        yield findings.ok("packages", "no requirements.lock here to compare them with")
        return
    wanted = _locked(lock.read_text(encoding="utf-8"))
    installed = {
        _canonical(found.name): found.version for found in importlib.metadata.distributions()
    }
    missing = sorted(set(wanted) - set(installed))
    # Builds for a processor or GPU say so behind a plus.
    others = [
        f"{name} {installed[name]} instead of {version}"
        for name, version in sorted(wanted.items())
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    ]
    if missing:
        text = f"{len(missing)} of {len(wanted)} are missing: {_some(missing)}"
        yield findings.error("packages", text, _SETUP)
    if others:
        text = f"{len(others)} have another version than tested: {_some(others)}"
        yield findings.warning("packages", text, _SETUP)
    if not missing and not others:
        yield findings.ok("packages", f"all {len(wanted)} are as locked")


def embedder() -> Iterator[findings.Finding]:
    """Whether the sentence embedder is there and is the official one."""
    try:
        files.check_embedder(files.embedder_folder())
    except errors.ConfigError as trouble:
        yield findings.error("embedder", str(trouble), f"reinstall its package: {_SETUP}")
    else:
        yield findings.ok("embedder", "its weights are the official ones")


def base_model(
    settings: config.Settings, environment: Mapping[str, str] = os.environ
) -> Iterator[findings.Finding]:
    """Whether the base model's files are there; the embedded one's hash, too."""
    name = settings.model.base
    if name == _EMBEDDED:
        try:
            folder = files.check_embedded()
        except errors.ConfigError as trouble:
            yield findings.error("base model", str(trouble), "get the project's files again")
        else:
            yield findings.ok("base model", f"embedded; its weights in {folder} are whole")
        return
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        yield from _local(folder)
    elif name.startswith((".", "/", "~")):
        yield findings.error(
            "base model", f"model.base: there is no folder {name}", "correct it in config.yaml"
        )
    elif (cached := _hub_folder(environment) / f"models--{name.replace('/', '--')}").is_dir():
        yield findings.ok("base model", f"{name} was fetched before, into {cached}")
    else:
        yield findings.warning(
            "base model",
            f"{name} is not on this machine yet",
            "the first start fetches it from the hub, which takes a network; or name a local path",
        )


def _local(folder: pathlib.Path) -> Iterator[findings.Finding]:
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    missing = [
        name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()
    ]
    if not weights:
        missing.append("weights (*.safetensors)")
    if missing:
        text = f"{folder} lacks {', '.join(missing)}"
        yield findings.error(
            "base model", text, "copy the whole model there, or correct model.base"
        )
        return
    size = sum(path.stat().st_size for path in weights)
    yield findings.ok("base model", f"{folder}, {size / 1e6:,.0f} MB of weights")


def _hub_folder(environment: Mapping[str, str]) -> pathlib.Path:
    """Where transformers keeps what it fetched."""
    home = environment.get("HF_HOME") or pathlib.Path.home() / ".cache" / "huggingface"
    return pathlib.Path(environment.get("HF_HUB_CACHE") or pathlib.Path(home) / "hub")


def _locked(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {_canonical(name): version for name, version in found}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
