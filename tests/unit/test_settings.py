from __future__ import annotations

import os
import pathlib

import pydantic
import pytest

from shared import errors
from shared import settings as config
from shared.hierarchy import levels


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SKILLMESH")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "config.yaml"


def refused(path: pathlib.Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path)
    return str(caught.value)


def test_the_line_is_named_when_yaml_is_malformed(path: pathlib.Path) -> None:
    message = refused(path, "trainer:\n  threads: 1\n  seed: [1, 2\nrouter: {}\n")
    assert "line 4" in message and str(path) in message


def test_the_file_is_named_when_it_is_not_text(path: pathlib.Path) -> None:
    path.write_bytes(b"model: \xff\xfe\xff")
    with pytest.raises(errors.ConfigError, match="not readable YAML"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trainr: {}\n", "trainr"),
        ("trainer:\n  thread: 2\n", "trainer.thread"),
        ("model:\n  recipes:\n    embedded:\n      rnk: 4\n", "model.recipes.embedded.rnk"),
        ("evolution:\n  fallbacks:\n    - {provider: openai}\n", "evolution.fallbacks.0.provider"),
    ],
)
def test_the_key_is_named_when_nobody_knows_it(path: pathlib.Path, text: str, key: str) -> None:
    assert f"  {key}: " in refused(path, text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trainer:\n  threads: many\n", "trainer.threads"),
        ("trainer:\n  threads: 0\n", "trainer.threads"),
        ("trainer: 5\n", "trainer"),
        ("inference:\n  semantic_samples: 1\n", "inference.semantic_samples"),
        ("inference:\n  semantic_samples: 17\n", "inference.semantic_samples"),
        ("router:\n  address: localhost\n", "router.address"),
        ("router:\n  dissonance_threshold: 1.5\n", "router.dissonance_threshold"),
        ("discovery:\n  zeroconf: [1]\n", "discovery.zeroconf"),
        ("telemetry:\n  log_format: xml\n", "telemetry.log_format"),
    ],
)
def test_the_key_is_named_when_its_value_is_wrong(path: pathlib.Path, text: str, key: str) -> None:
    assert f"  {key}: " in refused(path, text)


def test_every_wrong_key_is_named_when_there_are_several(path: pathlib.Path) -> None:
    message = refused(path, "trainer:\n  threads: x\nrouter:\n  adress: y\n")
    assert "  trainer.threads: " in message and "  router.adress: " in message


@pytest.mark.parametrize("text", ["- trainer\n", "trainer\n"])
def test_sections_are_asked_for_when_the_file_holds_something_else(
    path: pathlib.Path, text: str
) -> None:
    assert "expected sections" in refused(path, text)


def test_the_environment_wins_when_the_file_says_otherwise(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("trainer:\n  threads: 2\n  seed: 5\n")
    monkeypatch.setenv("SKILLMESH__TRAINER__THREADS", "3")
    settings = config.load(path)
    assert (settings.trainer.threads, settings.trainer.seed) == (3, 5)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("SKILLMESH__TRAINER__THREADS", "many", "trainer.threads"),
        ("SKILLMESH__TRAINER__THREAD", "2", "trainer.thread"),
    ],
)
def test_the_key_is_named_when_the_environment_is_wrong(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    monkeypatch.setenv(name, value)
    assert f"  {key}: " in refused(path, "")


def test_the_environment_is_blamed_when_its_json_is_malformed(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLMESH__TRAINER", "{threads")
    assert "SKILLMESH__ variable" in refused(path, "")


def test_defaults_hold_when_there_is_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load() == config.Settings()


def test_the_path_is_named_when_the_given_file_is_missing(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.ConfigError, match=r"config\.yaml"):
        config.load(path)
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(path))
    with pytest.raises(errors.ConfigError, match=r"config\.yaml"):
        config.load()


def test_the_recipe_is_that_of_the_base_when_there_is_one(path: pathlib.Path) -> None:
    path.write_text(
        "model:\n  base: org/big\n  recipes:\n    org/big: {rank: 4}\n    default: {rank: 5}\n"
    )
    model = config.load(path).model
    assert model.recipe().rank == 4
    assert model.model_copy(update={"base": "org/other"}).recipe().rank == 5


def test_settings_stay_as_they_were_when_somebody_writes_to_them() -> None:
    settings = config.Settings()
    with pytest.raises(pydantic.ValidationError):
        settings.trainer.threads = 3
    assert settings.trainer.threads == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "a-host"])
def test_the_address_is_named_when_it_is_open_to_others(path: pathlib.Path, host: str) -> None:
    text = f"card_store:\n  flight_address: {host}:7406\n"
    assert "card_store.flight_address" in refused(path, text)
    path.write_text("cluster: {trusted_network: true}\n" + text)
    assert config.load(path).card_store.flight_address == f"{host}:7406"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost"])
def test_an_address_is_taken_when_it_is_loopback(path: pathlib.Path, host: str) -> None:
    path.write_text(f"router:\n  address: {host}:7401\n")
    assert config.load(path).router.address == f"{host}:7401"


@pytest.mark.parametrize(
    "ranks", ["{q_prj: 4}", "{model.layers.0.self_attn.lm_head: 4}", "{q_proj: 0}"]
)
def test_the_rank_is_named_when_no_target_or_no_rank_it_is(path: pathlib.Path, ranks: str) -> None:
    message = refused(path, f"model:\n  recipes:\n    default:\n      ranks: {ranks}\n")
    assert "  model.recipes.default" in message and ranks[1:-4] in message


def test_ranks_are_read_when_they_are_given_by_kind_and_by_path(path: pathlib.Path) -> None:
    ranks = "{q_proj: 4, model.layers.0.self_attn.q_proj: 6}"
    path.write_text(f"model:\n  recipes:\n    embedded:\n      ranks: {ranks}\n")
    found = config.load(path).model.recipe().ranks
    assert found == {"q_proj": 4, "model.layers.0.self_attn.q_proj": 6}


def test_open_addresses_are_taken_when_tls_and_tokens_protect_them(path: pathlib.Path) -> None:
    text = "router:\n  address: 0.0.0.0:7401\n"
    tls = "tls: {certificate: c.pem, key: k.pem}"
    for half in (tls, "tokens: tokens.json"):
        assert "router.address" in refused(path, f"{text}security: {{{half}}}\n")
    path.write_text(f"{text}security: {{{tls}, tokens: tokens.json}}\n")
    assert config.load(path).security.tls.key == pathlib.Path("k.pem")


def test_what_is_missing_is_named_when_tls_is_half_configured(path: pathlib.Path) -> None:
    half = refused(path, "security: {tls: {certificate: c.pem}}\n")
    assert "certificate and key come together" in half
    half = refused(path, "security: {tls: {client_certificates: true}}\n")
    assert "client_certificates needs certificate, key and authority" in half


def test_layers_keep_their_defaults_when_others_are_named(path: pathlib.Path) -> None:
    path.write_text("hierarchy:\n  layers:\n    swarm: {rank: 2, inertia: 0.25}\n")
    specs = config.load(path).hierarchy.specs()
    assert specs[levels.Level.SWARM] == levels.Spec(2, 0.25)
    assert specs | {levels.Level.SWARM: levels.DEFAULT_SPECS[levels.Level.SWARM]} == (
        levels.DEFAULT_SPECS
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hierarchy:\n  layers:\n    herd: {rank: 2, inertia: 0.25}\n", "hierarchy.layers.herd"),
        ("hierarchy:\n  layers:\n    swarm: {rank: 2, inertia: 1}\n", "swarm.inertia"),
        (
            "telemetry:\n  metrics: {enabled: true, hierarchy: 0.0.0.0:7410}\n",
            "telemetry.metrics.hierarchy",
        ),
        ("hierarchy:\n  flight_address: 0.0.0.0:7409\n", "hierarchy.flight_address"),
    ],
)
def test_the_key_of_the_hierarchy_is_named_when_it_is_wrong(
    path: pathlib.Path, text: str, key: str
) -> None:
    assert key in refused(path, text)
