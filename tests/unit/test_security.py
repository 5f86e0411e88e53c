"""Tokens, roles and secrets, without any service."""

from __future__ import annotations

import contextlib
import json
import pathlib

import pytest
import structlog

from shared import errors
from shared import settings as config
from shared.pb import (
    agents_pb2,
    cards_pb2,
    distiller_pb2,
    factory_pb2,
    hierarchy_pb2,
    inference_pb2,
    maintenance_pb2,
    router_pb2,
    trainer_pb2,
)
from shared.security import callers, certs
from shared.security import protection as protections

CLOSED_TO_SERVICES = {
    "CardStore/SetAlias", "CardStore/RollBackAlias", "CardStore/DeleteCard", "CardStore/Revoke",
    "CardStore/ListPeers", "StoreMaintenance/ApplyRetention", "StoreMaintenance/CollectGarbage",
    "StoreMaintenance/CompactLog", "StoreMaintenance/Verify", "Distiller/AddDocument",
    "Factory/Teach", "Factory/CancelTask", "Factory/RetryTask", "Factory/RunNightly",
    "Factory/GiveFeedback", "Inference/PinCard", "Inference/UnpinCard", "Agents/ForgetAgent",
    "Hierarchy/RollBack", "Hierarchy/SetFrozen", "Hierarchy/Tick",
}  # fmt: skip
OPEN_TO_USERS = {
    "CardStore/GetCard", "CardStore/ListCards", "CardStore/GetStoreStatus",
    "CardStore/ListAliasMoves", "CardStore/ListResidency", "Router/Route", "Router/ExplainRoute",
    "Router/Embed", "Router/GetRouterStatus", "Factory/FindTask", "Factory/GetTask",
    "Factory/ListTasks", "Factory/WatchTask", "Distiller/GetDistillerStatus", "Inference/Generate",
    "Inference/GenerateStream", "Inference/Complete", "Inference/CompleteStream",
    "Inference/GetNodeStatus", "Agents/GetAgent", "Agents/ListAgents", "Hierarchy/GetHealth",
    "Hierarchy/GetHierarchyStatus", "Factory/GetCardFeedback",
}  # fmt: skip
OPEN_TO_TEACHERS = OPEN_TO_USERS | {
    "Factory/Teach", "Factory/GiveFeedback", "Distiller/AddDocument", "Agents/GiveFeedback",
}  # fmt: skip


def test_every_call_has_its_roles_when_a_service_offers_it() -> None:
    files = (
        agents_pb2, cards_pb2, distiller_pb2, factory_pb2, hierarchy_pb2, inference_pb2,
        maintenance_pb2, router_pb2, trainer_pb2,
    )  # fmt: skip
    offered = {
        f"{service.name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    def opened(role: callers.Role) -> set[str]:
        found = set()
        for method in offered:
            with contextlib.suppress(errors.ForbiddenError):
                callers.Caller("somebody", role, None).check_may(method)
                found.add(method)
        return found

    assert opened(callers.Role.OPERATOR) == offered
    trainer = opened(callers.Role.TRAINER)
    assert offered - trainer == CLOSED_TO_SERVICES
    assert opened(callers.Role.NODE) < trainer
    assert opened(callers.Role.USER) == OPEN_TO_USERS
    assert opened(callers.Role.TEACHER) == OPEN_TO_TEACHERS


GOOD = {"name": "one", "sha256": callers.hash_of("secret"), "role": "node"}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "its beginning"),
        ("{}", "its beginning"),
        (json.dumps([GOOD | {"role": "king"}]), "0.role"),
        (json.dumps([GOOD | {"sha256": "secret"}]), "0.sha256"),
        (json.dumps([GOOD | {"token": "secret"}]), "0.token"),
        (json.dumps([GOOD, {"name": "two"}]), "1.sha256"),
    ],
)
def test_file_of_tokens_is_refused_with_the_place_when_it_is_wrong(
    tmp_path: pathlib.Path, content: str, place: str
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(errors.ConfigError, match=f"tokens.json is wrong at {place}"):
        callers.Callers(path)
    with pytest.raises(errors.ConfigError, match=r"tokens: .*nowhere"):
        callers.Callers(tmp_path / "nowhere.json")


def test_tenants_are_those_that_tokens_name_but_for_the_sign_for_all(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([GOOD | {"tenants": one} for one in ([], ["*"])]))
    assert callers.Callers(path).tenants == callers.Callers().tenants == frozenset()
    path.write_text(json.dumps([GOOD | {"tenants": one} for one in (["a"], ["b", "*"], ["a"])]))
    assert callers.Callers(path).tenants == {"a", "b"}


def test_nobody_is_let_in_while_the_file_of_tokens_is_spoilt(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([GOOD]))
    admitted = callers.Callers(path)
    assert admitted.identify("Bearer secret").role is callers.Role.NODE
    path.write_text("[")
    with pytest.raises(errors.UnauthenticatedError, match="see its log"):
        admitted.identify("Bearer secret")
    path.write_text(json.dumps([GOOD]))
    assert admitted.identify("bearer  secret ").name == "one"
    for wrong in ("", "secret", "Basic secret", "Bearer ", "Bearer secrets"):
        with pytest.raises(errors.UnauthenticatedError):
            admitted.identify(wrong)


def settings(folder: pathlib.Path, **security: object) -> config.Settings:
    return config.Settings(
        cluster=config.Cluster(state_dir=folder), security=config.Security(**security)
    )


@pytest.mark.parametrize("text", ["two words", "two\nlines", "\u00e4", '[{"name": "x"}]'])
def test_token_is_refused_when_no_call_could_carry_it(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "own.token"
    path.write_text(text)
    with pytest.raises(errors.ConfigError, match="token_file"):
        protections.Protection.configured(settings(tmp_path, token_file=path), {})
    path.write_text(" fine-token\n")
    assert protections.Protection.configured(settings(tmp_path, token_file=path), {}).token == (
        "fine-token"
    )


def test_secret_is_warned_of_when_others_can_open_it(tmp_path: pathlib.Path) -> None:
    certs.make(tmp_path, [])
    token = tmp_path / "own.token"
    token.write_text("token")
    tls = config.Tls(certificate=tmp_path / "service.pem", key=tmp_path / "service.key")
    for mode, warned in ((0o600, 0), (0o644, 2)):
        token.chmod(mode)
        (tmp_path / "service.key").chmod(mode)
        with structlog.testing.capture_logs() as lines:
            protections.Protection.configured(settings(tmp_path, token_file=token, tls=tls), {})
        assert len([line for line in lines if "secret" in line["event"]]) == warned
        assert not any(line.get("token") == "token" for line in lines)
