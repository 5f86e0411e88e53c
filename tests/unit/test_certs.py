"""What `make certs` makes, and for whom."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from cryptography import x509

from shared.security import callers, certs


def test_certificate_is_for_the_machines_when_they_are_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SKILLMESH_ARG_names", "10.0.0.2 store.example")
    monkeypatch.setattr("sys.argv", ["certs"])
    certs.main()
    pem = (tmp_path / "certs" / "service.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    addresses = names.value.get_values_for_type(x509.IPAddress)
    assert ipaddress.ip_address("10.0.0.2") in addresses
    assert "store.example" in names.value.get_values_for_type(x509.DNSName)
    assert "skillmesh" in names.value.get_values_for_type(x509.DNSName)
    assert str(tmp_path / "certs" / "service.pem") in capsys.readouterr().out


def test_tokens_lie_in_files_of_their_owner_when_that_is_asked_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["certs", "--token-files"])
    certs.main()
    told = capsys.readouterr().out
    known = callers.Callers(tmp_path / "certs" / "tokens.json")
    for role in callers.Role:
        path = tmp_path / "certs" / f"{role.value}.token"
        assert path.stat().st_mode & 0o077 == 0 and path.read_text() in told
        assert known.identify(callers.header(path.read_text())).role is role
