"""From a model's name to a `LoRARequest`; vLLM's classes are its own where it is installed."""

from __future__ import annotations

import abc
import asyncio
import pathlib
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import skillmesh_vllm
import stores
from skillmesh_vllm import cache, following, resolver, settings

FOLDER = pathlib.Path(skillmesh_vllm.__file__).parents[1]


class LoRARequest(NamedTuple):
    """vLLM's documented interface, as far as a resolver uses it."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class Parts(NamedTuple):
    resolver: resolver.CardResolver
    cards: stores.FakeStore
    followed: dict[str, str]
    root: pathlib.Path

    def kept(self) -> list[str]:
        if not self.root.exists():
            return []
        return [path.name for path in self.root.iterdir() if path.name != ".locks"]


class RecordingFollower(following.NameFollower):
    def __init__(self, followed: dict[str, str]) -> None:
        self._followed = followed

    def follow(self, name: str, digest: str) -> None:
        self._followed[name] = digest


@pytest.fixture
def parts(tmp_path: pathlib.Path) -> Parts:
    cards, followed = stores.FakeStore(), dict[str, str]()
    root = tmp_path / "cache"
    made = resolver.CardResolver(
        cards,
        cache.FolderCache(root, 2**30),
        stores.BASE.fingerprint,
        LoRARequest,
        RecordingFollower(followed),
    )
    return Parts(made, cards, followed, root)


@pytest.mark.parametrize("selector", ["", "@latest", "@production", "@digest"])
async def test_the_folder_of_the_card_is_named_when_the_store_knows_the_name(
    parts: Parts, selector: str
) -> None:
    card = parts.cards.publish(stores.card(), "production")
    name = "tiny-skill" + selector.replace("digest", card.digest)
    request = await parts.resolver.resolve_lora("any/spelling", name)
    assert request.lora_name == f"{card.identity}#1"
    assert request.lora_path == str(parts.root / card.digest)
    assert 0 < request.lora_int_id < 2**63
    assert parts.followed == {name: card.digest}
    assert sorted(path.name for path in pathlib.Path(request.lora_path).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


async def test_name_number_and_path_are_others_when_the_alias_moved(parts: Parts) -> None:
    parts.cards.publish(stores.card())
    first = await parts.resolver.resolve_lora("base", "tiny-skill")
    parts.cards.publish(stores.card(seed=2, version="1.0.1"))
    second = await parts.resolver.resolve_lora("base", "tiny-skill")
    assert all(one != other for one, other in zip(first, second, strict=True))
    again = await parts.resolver.resolve_lora("base", first.lora_name)
    assert again.lora_path == first.lora_path


async def test_no_two_requests_have_one_name_when_they_mean_one_card(parts: Parts) -> None:
    card = parts.cards.publish(stores.card(), "production")
    asked = ["tiny-skill", "tiny-skill@production", card.identity, "tiny-skill"]
    found = [await parts.resolver.resolve_lora("base", name) for name in asked]
    assert len({request.lora_name for request in found}) == len(asked)
    assert {request.lora_name.partition("#")[0] for request in found} == {card.identity}


async def test_one_download_serves_all_when_many_ask_at_once(parts: Parts) -> None:
    card = parts.cards.publish(stores.card())
    parts.cards.hold.clear()
    asking = [
        asyncio.create_task(parts.resolver.resolve_lora("base", name))
        for name in ["tiny-skill", card.identity] * 4
    ]
    while not parts.cards.fetched:
        await asyncio.sleep(0)
    parts.cards.hold.set()
    found = await asyncio.gather(*asking)
    assert {request.lora_path for request in found} == {str(parts.root / card.digest)}
    assert parts.cards.fetched == [card.digest]


@pytest.mark.parametrize(
    "name",
    ["", "..", "../secret", "a/b", "skill@../../x", "Skill", "skill@", "@latest", "skill@a@b",
     "skill#1", "skill@latest#1", f"skill@{'a' * 64}#", f"skill@{'a' * 64}#../x",
     "/etc/passwd", "meta-llama/Llama-3", "skill\n", "a" * 64],
)  # fmt: skip
async def test_the_store_is_not_asked_when_the_name_can_not_be_a_card(
    parts: Parts, name: str
) -> None:
    assert await parts.resolver.resolve_lora("base", name) is None
    assert parts.cards.asked == [] and parts.kept() == []


async def test_nothing_is_fetched_when_the_store_says_it_is_for_another_base(
    parts: Parts,
) -> None:
    parts.cards.publish(stores.card(fingerprint="e" * 64))
    assert await parts.resolver.resolve_lora("tiny", "tiny-skill") is None
    assert parts.cards.fetched == []


async def test_nothing_is_kept_when_only_the_card_says_it_is_for_another_base(
    parts: Parts,
) -> None:
    parts.cards.publish(stores.card(fingerprint="e" * 64), says_base=False)
    assert await parts.resolver.resolve_lora("tiny", "tiny-skill") is None
    assert len(parts.cards.fetched) == 1
    assert parts.kept() == [] and parts.followed == {}


async def test_there_is_no_adapter_when_the_store_has_none_or_is_away(parts: Parts) -> None:
    assert await parts.resolver.resolve_lora("base", "unknown") is None
    card = parts.cards.publish(stores.card())
    await parts.resolver.resolve_lora("base", "tiny-skill")
    parts.cards.away = True
    # Even of a card in the cache: it may be revoked by now.
    assert await parts.resolver.resolve_lora("base", card.identity) is None


async def test_the_card_is_found_when_vllm_passes_more_than_two_arguments(parts: Parts) -> None:
    parts.cards.publish(stores.card())
    assert await parts.resolver.resolve_lora("base", "tiny-skill", None)
    assert await parts.resolver.resolve_lora(
        base_model_name="base", lora_name="tiny-skill", tensorizer_config=None
    )


def variables(**changed: str) -> dict[str, str]:
    return {
        "SKILLMESH_STORE": "127.0.0.1:7406",
        "SKILLMESH_BASE_FINGERPRINT": "a" * 64,
    } | changed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"SKILLMESH_STORE": "nowhere"}, "SKILLMESH_STORE"),
        ({"SKILLMESH_BASE_FINGERPRINT": ""}, "SKILLMESH_BASE_FINGERPRINT"),
        ({"SKILLMESH_TLS_AUTHORITY": "/no/such/file"}, "SKILLMESH_TLS_AUTHORITY"),
        ({"SKILLMESH_VLLM_CACHE_MIB": "-1"}, "SKILLMESH_VLLM_CACHE_MIB"),
        ({"SKILLMESH_VLLM_FOLLOW_S": "often"}, "SKILLMESH_VLLM_FOLLOW_S"),
        ({"SKILLMESH_STORE": "10.0.0.7:7406", "SKILLMESH_TOKEN": "secret"}, "unencrypted"),
    ],
    ids=lambda value: str(value),
)
def test_the_variable_is_named_when_it_is_wrong(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        settings.from_environment(variables(**changed))


def test_secrets_come_from_files_when_the_environment_names_them(tmp_path: pathlib.Path) -> None:
    for name in ("token", "ca"):
        (tmp_path / name).write_text(f"{name}\n")
    found = settings.from_environment(
        variables(
            SKILLMESH_STORE="grpc+tls://store.example:7406",
            SKILLMESH_TOKEN_FILE=str(tmp_path / "token"),
            SKILLMESH_TLS_AUTHORITY=str(tmp_path / "ca"),
        )
    )
    assert found is not None
    assert (found.store.token, found.store.authority) == ("token", b"ca\n")
    assert "token" not in repr(found)


def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Vllm's registry, its own where it is installed."""
    try:
        from vllm.lora.resolver import LoRAResolverRegistry
    except ImportError:

        class LoRAResolver(abc.ABC):
            @abc.abstractmethod
            async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any: ...

        class Registry:
            def __init__(self) -> None:
                self.resolvers: dict[str, Any] = {}

            def register_resolver(self, resolver_name: str, resolver: Any) -> None:
                assert isinstance(resolver, LoRAResolver)
                self.resolvers[resolver_name] = resolver

        LoRAResolverRegistry = Registry()
        request = types.ModuleType("vllm.lora.request")
        request.LoRARequest = LoRARequest  # type: ignore[attr-defined]
        found = types.ModuleType("vllm.lora.resolver")
        found.LoRAResolver = LoRAResolver  # type: ignore[attr-defined]
        found.LoRAResolverRegistry = LoRAResolverRegistry  # type: ignore[attr-defined]
        for name, module in {
            "vllm": types.ModuleType("vllm"),
            "vllm.lora": types.ModuleType("vllm.lora"),
            "vllm.lora.request": request,
            "vllm.lora.resolver": found,
        }.items():
            monkeypatch.setitem(sys.modules, name, module)
    return lambda: LoRAResolverRegistry.resolvers


def test_the_resolver_is_registered_when_a_store_is_named_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolvers = registered(monkeypatch)
    monkeypatch.delenv("SKILLMESH_STORE", raising=False)
    skillmesh_vllm.register()
    assert resolvers() == {}
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    skillmesh_vllm.register()
    skillmesh_vllm.register()
    assert isinstance(resolvers()[skillmesh_vllm.RESOLVER_NAME], resolver.CardResolver)
    resolvers().clear()


def test_vllm_finds_the_function_when_the_package_is_installed() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vllm.general_plugins"] == {
        "skillmesh": "skillmesh_vllm:register"
    }


def test_neither_torch_nor_the_services_are_imported_when_the_plugin_is() -> None:
    script = (
        "import sys, skillmesh_vllm\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "found = roots & {'torch', 'vllm', 'services', 'shared', 'grpc'}\n"
        "sys.exit(str(found) if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
