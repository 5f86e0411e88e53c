"""What HTTP's headers tell about asking again, and how the keys stay out of messages."""

from __future__ import annotations

import base64
import email.utils
import urllib.parse

import pytest

from services.distiller.providers import failures, masking
from shared import errors

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": email.utils.formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW_S + 90, localtime=False)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW_S - 90, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, 86_400.0),
        ({"retry-after": "99999999"}, 86_400.0),
        ({"retry-after": "after lunch"}, None),
    ],
)
def test_pause_is_read_when_headers_ask_for_one(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert failures.retry_after_s(headers, lambda: NOW_S) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "codes", "advice"),
    [
        (429, {}, (), failures.Advice(again=True)),
        (500, {"x-should-retry": "false"}, (), failures.Advice()),
        (400, {"x-should-retry": "true"}, (), failures.Advice(again=True)),
        (529, {"retry-after": "3"}, (), failures.Advice(again=True, after_s=3.0)),
        (429, {}, ("insufficient_quota",), failures.Advice(until_mended=True)),
        (429, {}, ("credit_balance_exhausted",), failures.Advice(until_mended=True)),
        (429, {}, ("enforced_spend_limit_reached",), failures.Advice(until_mended=True)),
        (400, {}, ("billing_error",), failures.Advice(until_mended=True)),
        (402, {}, (), failures.Advice(until_mended=True)),
        (401, {}, (), failures.Advice(until_mended=True)),
        (400, {}, ("invalid_request_error",), failures.Advice()),
    ],
)
def test_advice_follows_status_headers_and_code_when_a_request_is_turned_down(
    status: int, headers: dict[str, str], codes: tuple[str, ...], advice: failures.Advice
) -> None:
    error = failures.from_status("t", status, "no", "KEY", headers, codes)
    assert failures.advice(error) == advice


def test_errors_without_advice_say_nothing() -> None:
    assert failures.advice(errors.TeacherError("refused")) == failures.Advice()


def test_secrets_are_masked_when_one_begins_with_another() -> None:
    mask = masking.Mask("sk-abc", "sk-abcdef", "", "no")
    assert mask("sk-abcdef, sk-abc and no more") == "[key], [key] and no more"


@pytest.mark.parametrize("key", ["sk-abc\n", "sk-abc\r\n", " sk-abc", "sk-\u2026abc", "sk-%2Fabc"])
def test_key_is_masked_however_an_http_library_quotes_it(key: str) -> None:
    mask = masking.Mask(key)
    for text in (key, repr(key), repr(key.strip()), urllib.parse.unquote(key), f"{key.encode()!r}"):
        assert "abc" not in mask(f"Illegal header value {text}!")


def test_credentials_of_an_address_are_masked_as_basic_authentication_sends_them() -> None:
    told = masking.credentials("https://me:se%21same@host/v1")
    mask = masking.Mask(*told)
    for password in ("se%21same", "se!same"):
        sent = base64.b64encode(f"me:{password}".encode()).decode()
        assert mask(f"Basic {sent} for {password}") == "Basic [key] for [key]"
    assert masking.credentials("") == masking.credentials("https://host/v1") == ()
