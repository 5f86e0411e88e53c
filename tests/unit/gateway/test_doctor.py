"""`skillmesh doctor` on installations that the tests break, one way at a time."""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest

from services.gateway.cluster import cluster, programs, supervision
from services.gateway.command_line.doctor import (
    configuration,
    doctor,
    findings,
    installation,
    machine,
    running,
)
from shared import multicast
from shared import settings as config
from shared.cards import signature
from shared.models import files
from shared.security import certs
from tests.contract.command_runs import Commands, documented

NOTHING: dict[str, str] = {}


def levels(found: Iterable[findings.Finding]) -> list[str]:
    return [finding.level for finding in found]


def only(found: Iterable[findings.Finding]) -> findings.Finding:
    [finding] = list(found)
    return finding


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> config.Settings:
    """Free ports, and a state folder that does not exist yet."""
    free = programs.on_free_ports(config.Settings())
    return free.model_copy(update={"cluster": config.Cluster(state_dir=tmp_path / "state")})


def test_all_is_well_when_nothing_is_broken(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    commands = Commands(monkeypatch, tmp_path / "state")
    for name in ("router", "factory", "distiller", "trainer", "inference"):
        commands.set(f"{name.upper()}__ADDRESS", getattr(settings, name).address)
    commands.set("CARD_STORE__ADDRESS", settings.card_store.address)
    commands.set("GATEWAY__ADDRESS", settings.hierarchy.address)
    commands.set("CARD_STORE__FLIGHT_ADDRESS", settings.card_store.flight_address)
    # Somebody's cluster may run on this machine, at the usual ports.
    for name, address in settings.telemetry.metrics.addresses().items():
        commands.set(f"TELEMETRY__METRICS__{name.upper()}", address)
    told = commands.json("doctor")
    assert set(told) == documented("doctor") - {"about", "level", "text", "remedy"}
    assert told["errors"] == 0
    looked_at = {finding["about"] for finding in told["findings"]}
    assert looked_at >= {
        *("configuration", "python", "packages", "embedder", "base model", "ports", "services"),
        *("state folder", "clock", "discovery", "teachers", "TLS", "tokens", "signatures"),
    }
    # It leaves nothing behind.
    assert not (tmp_path / "state").exists()
    printed = commands.run("doctor")
    assert "ok embedder: its weights are the official ones" in printed.splitlines()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("router: {adress: 127.0.0.1:7401}", "router.adress"),
        ("routers: {}", "routers"),
        ("router: [", "not readable YAML"),
        ("card_store: {flight_address: 0.0.0.0:7406}", "card_store.flight_address"),
    ],
)
def test_configuration_that_is_wrong_is_named(
    text: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("SKILLMESH_CONFIG", "set so that it is put back after the test")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    commands = Commands(monkeypatch, tmp_path / "state")
    printed = commands.run("--config", str(path), "doctor", code=1)
    assert named in printed
    # What does not depend on it is looked at all the same.
    assert "ok python" in printed


def test_cause_that_several_checks_meet_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    commands = Commands(monkeypatch, tmp_path / "state")
    commands.set("SECURITY__TLS__AUTHORITY", str(tmp_path / "missing.pem"))
    told = [one for one in doctor.examined() if "missing.pem" in one.text]
    assert [(one.about, one.level) for one in told] == [("TLS", "error")]


def test_port_that_somebody_else_holds_is_named_with_its_holder(settings: config.Settings) -> None:
    assert levels(machine.ports(settings)) == ["ok"]
    host, _, port = settings.router.address.rpartition(":")
    with socket.create_server((host, int(port))):
        found = list(machine.ports(settings))
    [taken] = [finding for finding in found if finding.level == "error"]
    assert "router.address" in taken.text and f"process {os.getpid()} (" in taken.text
    # Each is told once, whatever else its program listens to.
    metrics = settings.telemetry.metrics.model_copy(update={"enabled": True})
    telemetry = settings.telemetry.model_copy(update={"metrics": metrics})
    host, _, port = metrics.router.rpartition(":")
    with socket.create_server((host, int(port))):
        found = list(machine.ports(settings.model_copy(update={"telemetry": telemetry})))
    [taken] = [finding for finding in found if finding.level == "error"]
    assert "telemetry.metrics.router" in taken.text and "is held by" in taken.text
    twice = settings.router.model_copy(update={"address": settings.trainer.address})
    found = list(machine.ports(settings.model_copy(update={"router": twice})))
    [doubled] = [finding for finding in found if finding.level == "error"]
    assert "router.address and trainer.address" in doubled.text


def test_state_folder_that_cannot_be_written_is_named(
    settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    assert only(machine.state_folder(settings)).level == "ok"
    (tmp_path / "state").write_text("a file in the way")
    found = only(machine.state_folder(settings))
    assert (found.level, str(tmp_path / "state") in found.text) == ("error", True)


@pytest.mark.parametrize(
    ("free", "level"), [(100_000_000, "error"), (1_000_000_000, "warning"), (10**11, "ok")]
)
def test_space_that_runs_out_is_told_before_it_has(
    settings: config.Settings, free: int, level: str
) -> None:
    assert only(machine.state_folder(settings, lambda path: free)).level == level


def test_full_disk_is_found_by_writing(tmp_path: pathlib.Path) -> None:
    """With a limit that makes every write fail as if the disk were full."""
    command = 'ulimit -f 0; exec "$0" -m services.gateway doctor'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable],
        cwd=cluster.ROOT,
        env=os.environ | {"SKILLMESH__CLUSTER__STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "error state folder: " in done.stdout and "can't be written" in done.stdout


def test_certificates_that_expire_or_do_not_belong_together_are_named(
    settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    assert only(configuration.tls(settings)).level == "ok"
    now = datetime.datetime.now(datetime.UTC)

    def protected(age_days: int) -> config.Settings:
        folder = tmp_path / f"certs{age_days}"
        certs.make(folder, [], force=True, now=now - datetime.timedelta(days=age_days))
        tls = config.Tls(
            certificate=folder / "service.pem",
            key=folder / "service.key",
            authority=folder / "authority.pem",
        )
        return settings.model_copy(update={"security": config.Security(tls=tls)})

    assert levels(configuration.tls(protected(1))) == ["ok", "ok"]
    assert levels(configuration.tls(protected(certs.VALID_DAYS - 5))) == ["warning", "warning"]
    expired = list(configuration.tls(protected(certs.VALID_DAYS + 1)))
    assert levels(expired) == ["error", "error"] and "expired at" in expired[0].text
    early = now - datetime.timedelta(days=2)
    assert levels(configuration.tls(protected(1), early)) == ["error", "error"]
    shutil.copy(tmp_path / "certs1" / "service.key", tmp_path / "certs366" / "service.key")
    assert "does not belong" in only(configuration.tls(protected_again(settings, tmp_path))).text
    (tmp_path / "certs366" / "service.pem").unlink()
    assert "can't be read" in only(configuration.tls(protected_again(settings, tmp_path))).text


def protected_again(settings: config.Settings, tmp_path: pathlib.Path) -> config.Settings:
    """With the expired certificates, as they lie there now."""
    folder = tmp_path / "certs366"
    tls = config.Tls(certificate=folder / "service.pem", key=folder / "service.key")
    return settings.model_copy(update={"security": config.Security(tls=tls)})


def test_token_that_nobody_knows_is_told(settings: config.Settings, tmp_path: pathlib.Path) -> None:
    assert only(configuration.tokens(settings, NOTHING)).level == "ok"
    tokens = certs.make(tmp_path / "certs", [])
    security = config.Security(tokens=tmp_path / "certs" / "tokens.json")
    guarded = settings.model_copy(update={"security": security})
    assert "has none" in only(configuration.tokens(guarded, NOTHING)).text
    wrong = only(configuration.tokens(guarded, {"SKILLMESH_TOKEN": "stranger"}))
    assert (wrong.level, "is not in" in wrong.text) == ("error", True)
    right = only(configuration.tokens(guarded, {"SKILLMESH_TOKEN": tokens["operator"]}))
    assert (right.level, "operator" in right.text) == ("ok", True)
    (tmp_path / "certs" / "tokens.json").write_text("[{}]")
    assert only(configuration.tokens(guarded, {"SKILLMESH_TOKEN": "x"})).level == "error"


def test_trainers_key_that_nobody_trusts_is_told(
    settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    assert only(configuration.keys(settings)).level == "ok"
    signer = signature.Signer.load_or_make(settings.signing_key_path())
    assert "is not in" in only(configuration.keys(settings)).text
    folder = settings.keyring_path()
    signer.publish(folder)
    assert only(configuration.keys(settings)).level == "ok"
    (folder / f"{signer.key_id}.revoked").touch()
    assert "is revoked" in only(configuration.keys(settings)).text
    settings.signing_key_path().chmod(0o644)
    assert "open to other users" in only(configuration.keys(settings)).text
    open_to_all = settings.model_copy(
        update={"security": config.Security(require_signatures=False)}
    )
    assert only(configuration.keys(open_to_all)).level == "warning"


def test_teacher_without_a_key_is_told_and_what_that_means(
    settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    def asked(environment: dict[str, str], **evolution: object) -> list[findings.Finding]:
        chosen = config.Evolution(**evolution)  # type: ignore[arg-type]
        return list(
            configuration.teachers(settings.model_copy(update={"evolution": chosen}), environment)
        )

    auto, documents = asked(NOTHING)
    assert "means documents" in auto.text and documents.level == "ok"
    auto, key = asked({"OPENAI_API_KEY": "k"})
    assert "means openai" in auto.text and "questions are sent there" in key.text
    assert levels(asked(NOTHING, provider_type="anthropic")) == ["error"]
    fallbacks = (config.Teacher(provider_type="openai"), config.Teacher(provider_type="local"))
    assert levels(asked(NOTHING, provider_type="documents", fallbacks=fallbacks)) == [
        "ok",
        "error",
        "ok",
    ]
    settings.state_path("knowledge").mkdir(parents=True)
    assert levels(asked(NOTHING, provider_type="documents")) == ["warning"]


def test_packages_that_are_missing_or_others_are_named(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "requirements.lock"
    assert only(installation.packages(lock)).level == "ok"
    lock.write_text("# all\nPyYAML==0.1\nno_such.package==1.0\ntyper==0.0.1; python_version>'3'\n")
    missing, others = installation.packages(lock)
    assert (missing.level, "no-such-package" in missing.text) == ("error", True)
    assert (others.level, "instead of 0.1" in others.text) == ("warning", True)


def test_models_that_were_damaged_or_are_away_are_told(
    settings: config.Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(installation.base_model(settings)).level == "ok"
    damaged = tmp_path / "checkpoint"
    shutil.copytree(files.EMBEDDED_FOLDER, damaged)
    weights = bytearray((damaged / files.WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (damaged / files.WEIGHTS).write_bytes(weights)
    monkeypatch.setattr(files, "EMBEDDED_FOLDER", damaged)
    assert "SHA-256" in only(installation.base_model(settings)).text
    monkeypatch.setattr(files, "embedder_folder", lambda: damaged)
    assert "SHA-256" in only(installation.embedder()).text
    (damaged / files.WEIGHTS).unlink()
    assert "can't be read" in only(installation.base_model(settings)).text
    assert "are missing" in only(installation.embedder()).text

    def named(base: str) -> findings.Finding:
        model = settings.model.model_copy(update={"base": base})
        chosen = settings.model_copy(update={"model": model})
        return only(installation.base_model(chosen, {"HF_HOME": str(tmp_path / "hub's")}))

    assert "lacks weights" in named(str(damaged)).text
    (damaged / "model.safetensors").write_bytes(b"whole")
    assert named(str(damaged)).level == "ok"
    assert named("./nowhere").level == "error"
    assert named("somebody/model").level == "warning"
    (tmp_path / "hub's" / "hub" / "models--somebody--model").mkdir(parents=True)
    assert named("somebody/model").level == "ok"


def test_clock_that_lies_behind_the_files_is_told(settings: config.Settings) -> None:
    assert only(machine.clock(settings)).level == "ok"
    assert only(machine.clock(settings, lambda: 0.0)).level == "error"


def test_interface_that_the_machine_does_not_have_is_named(settings: config.Settings) -> None:
    def chosen(**discovery: object) -> findings.Finding:
        section = config.Discovery(**discovery)  # type: ignore[arg-type]
        changed = settings.model_copy(update={"discovery": section})
        here = frozenset([multicast.Address("127.0.0.1", 8)])
        return only(machine.networks(changed, lambda: here))

    assert chosen(interfaces=["127.0.0.1"]).level == "ok"
    assert chosen(interfaces="all").level == "ok"
    gone = chosen(interfaces=["127.0.0.1", "10.9.9.9"])
    assert (gone.level, "10.9.9.9" in gone.text) == ("error", True)
    assert chosen(zeroconf=False).level == "warning"
    assert chosen(zeroconf=False, stores=["127.0.0.1:1"]).level == "ok"


@pytest.fixture
def sleepers(settings: config.Settings) -> Iterator[supervision.Supervisor]:
    """A cluster whose processes run and answer nothing."""
    cluster.Cluster(settings)._prepare()
    found = supervision.Supervisor(settings.cluster.state_dir)
    chosen = [
        programs.Program(one.name, "tests.unit.gateway.sleeper", one.address, one.key)
        for one in programs.of(settings)
    ]
    found.start(chosen, os.environ)
    yield found
    found.stop()


def test_service_that_does_not_answer_is_named_with_its_process(
    settings: config.Settings, sleepers: supervision.Supervisor
) -> None:
    found = list(running.services(settings))
    assert set(levels(found)) == {"error"} and len(found) == len(programs.of(settings))
    assert any(one.text.startswith("router at ") and "its process is" in one.text for one in found)
    for pid in [one.pid for one in sleepers.processes() if one.name == "router"]:
        os.kill(pid, signal.SIGKILL)
    assert any(one.text.startswith("router at ") for one in running.services(settings))


def test_code_and_settings_that_changed_since_the_start_are_told(
    settings: config.Settings, sleepers: supervision.Supervisor, tmp_path: pathlib.Path
) -> None:
    for folder in ("services", "shared"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").touch()
        os.utime(tmp_path / folder / "a.py", (0, 0))
    assert levels(running.freshness(settings, tmp_path)) == ["ok", "ok"]
    router = settings.router.model_copy(update={"dissonance_threshold": 0.9})
    changed = settings.model_copy(update={"router": router})
    assert "router.dissonance_threshold" in list(running.freshness(changed, tmp_path))[1].text
    (tmp_path / "shared" / "a.py").touch()
    os.utime(tmp_path / "shared" / "a.py", (2**31, 2**31))
    assert "code has changed" in next(iter(running.freshness(settings, tmp_path))).text


def test_check_that_hangs_or_breaks_keeps_nobody_from_the_rest() -> None:
    forever = threading.Event()

    def hangs() -> Iterator[findings.Finding]:
        forever.wait()
        yield findings.ok("hangs", "after all")

    def breaks() -> Iterator[findings.Finding]:
        raise ZeroDivisionError("of the check")

    checks: dict[str, findings.Check] = {
        "hangs": hangs,
        "breaks": breaks,
        "works": lambda: [findings.ok("works", "well")],
    }
    found = findings.gathered(checks, limit_s=0.5)
    forever.set()
    assert [(one.about, one.level) for one in found] == [
        ("hangs", "warning"),
        ("breaks", "warning"),
        ("works", "ok"),
    ]
    assert "ZeroDivisionError" in found[1].text


def test_port_that_swallows_everything_keeps_nobody_waiting(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    commands = Commands(monkeypatch, tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for name in ("ROUTER", "INFERENCE", "CARD_STORE"):
            commands.set(f"{name}__ADDRESS", address)
        found = doctor.examined()
    assert any(address in one.text for one in found if one.about == "ports")
    assert {"python", "services", "teachers"} <= {one.about for one in found}
