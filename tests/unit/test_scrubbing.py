"""What leaves the router of a question: planted secrets never, ordinary questions whole."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from shared import scrubbing
from shared.models.embedded.recipe import conversations, families

# Put together here, so that no scanner takes the file for one that leaks.
_GITHUB = "gh" + "p_16C7e42F292c6912E7710c838347Ae178B4a"
_AWS = "AKI" + "AIOSFODNN7EXAMPLE"
_STRIPE = "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
_SLACK = "xox" + "b-263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"
_JWT = "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
_PEM = (
    "-----BEGIN "
    + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nX9sL0==\n-----END RSA PRIVATE KEY-----"
)
PLANTED = [
    ("Write to jane.doe@example.com about it", "jane.doe@example.com"),
    ("Is o'neil+tag@mail.example.co.uk still valid?", "tag@mail.example.co.uk"),
    ("mail me at a_b-c@sub.domain.org.", "a_b-c@sub.domain.org"),
    ("Who owns MAX.MUSTERMANN@FIRMA.DE?", "MAX.MUSTERMANN@FIRMA.DE"),
    ("Call me at +1 415 555 2671 please", "555 2671"),
    ("Call (415) 555-2671 tomorrow", "555-2671"),
    ("My number is 415-555-2671.", "555-2671"),
    ("Who calls from +49 30 901820?", "901820"),
    ("ring 030 90182012 in Berlin", "90182012"),
    ("text +44 20 7946 0958", "7946 0958"),
    ("phone 020 7946 0958 or wait", "7946 0958"),
    ("My mobile is 07911 123456", "123456"),
    ("appelle le 06 12 34 56 78", "34 56 78"),
    ("Bill 4111 1111 1111 1111 now", "4111 1111"),
    ("card 5500-0000-0000-0004 was refused", "5500-0000"),
    ("Is 378282246310005 an Amex?", "378282246310005"),
    ("why was 6011111111111117 declined", "6011111111111117"),
    ("Pay to DE89 3704 0044 0532 0130 00 today", "3704 0044"),
    ("IBAN GB29NWBK60161331926819?", "GB29NWBK60161331926819"),
    ("transfer to FR1420041010050500013M02606 please", "FR1420041010050500013M02606"),
    ("send it to NL91ABNA0417164300", "NL91ABNA0417164300"),
    ("My SSN is 536-90-4399", "536-90-4399"),
    ("Why is 203.0.113.77 blocked?", "203.0.113.77"),
    ("ssh to 192.168.17.4 fails", "192.168.17.4"),
    ("Who runs 8.8.4.4:53?", "8.8.4.4"),
    ("ping 2001:db8:85a3::8a2e:370:7334 fails", "2001:db8:85a3::8a2e:370:7334"),
    ("reach fe80::1ff:fe23:4567:890a", "fe80::1ff:fe23:4567:890a"),
    (f"Why does {_GITHUB} not work?", _GITHUB),
    (f"aws key {_AWS} is refused", _AWS),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
    (f"charge with {_STRIPE}", _STRIPE),
    (f"slack says {_SLACK} is revoked", _SLACK),
    (f"Decode {_JWT} for me", _JWT),
    ("use sk-" + "proj-abcdefghijklmnop1234567890ABCDEF", "abcdefghijklmnop1234567890ABCDEF"),
    ("sk-" + "ant-api03-AbCdEf0123456789AbCdEf0123456789 expired", "AbCdEf0123456789"),
    ("AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY quota?", "SyD-9tSrke72PouQMnMX"),
    ("hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345 can't read", "AbCdEfGhIjKlMnOpQrSt"),
    ("glpat-" + "x1Y2z3A4b5C6d7E8f9G0 can't push", "x1Y2z3A4b5C6d7E8f9G0"),
    ("npm_" + "abcdEFGH1234ijklMNOP5678qrstUVWX90yz fails", "abcdEFGH1234ijkl"),
    ("curl -H 'Authorization: Bearer abcDEF123.ghi-456' fails", "abcDEF123.ghi-456"),
    (f"what is wrong with\n{_PEM}", "MIIEpAIBAAKCAQEA7bq"),
    ("postgres://admin:s3cr3tPa55@db.internal/x fails", "s3cr3tPa55"),
    ("my password is hunter2, why is it refused?", "hunter2"),
    ("The password: Tr0ub4dor&3 does not work", "Tr0ub4dor&3"),
    ("pwd=letmein99 fails", "letmein99"),
    ("passwort ist Geheim123", "Geheim123"),
    ("my PIN is 4921", "4921"),
    ("api key: 0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165"),
    ("the token is abc.DEF.123", "abc.DEF.123"),
    ("client_secret='Zx81+Spectrum'", "Zx81+Spectrum"),
    ("Whose is 9f86d081884c7d659a2feaa0c55ad015?", "9f86d081884c7d659a2feaa0c55ad015"),
    ("kQ7tW2xZ9pLm4RvB8nYc1sHd is my key", "kQ7tW2xZ9pLm4RvB8nYc1sHd"),
    ("password hunter2 is not accepted", "hunter2"),
    ("the wifi password for Guest is Blue!Sky42", "Blue!Sky42"),
    ("use passphrase correct-horse-battery-staple", "correct-horse"),
    ("my pass is foo123", "foo123"),
    ("card of Ann, cvv 123", "123"),
    ("call 5551234567 now", "5551234567"),
    ("why does 555-123-4567 ring?", "123-4567"),
    ("my e-mail: bob at example dot com", "bob at example"),
    ("DE89 3704 0044 0532 0130 00 and GB82 WEST 1234 5698 7654 32", "WEST"),
    ("my passport number is C01X00T47", "C01X00T47"),
    ("the key is 12345678-1234-1234-1234-123456789012", "1234-123456789012"),
]
KEPT = [
    "What changed in version 1.2.3.4?",
    "Does release 10.0.0.1 of Quorrel need Python 3.11?",
    "How do I go from v 2.0.1.7 to the next one?",
    "What is in section 4.1.2.3 of the statutes?",
    "Is 10.2.0.1 the newest version?",
    "How do I upgrade from 1.2.3.4 to 1.2.4.0?",
    "What does key: value mean in YAML?",
    "What is the secret of the Zorblax?",
    "Who says that the secret is out?",
    "What was the password of Ali Baba?",
    "Why is pin 12 high?",
    "Why does 127.0.0.1:7401 refuse connections?",
    "Who is Ilse Vandermoor?",
    "What is the Zorblax-9000 made of?",
    "What does error E-20417 mean?",
    "How much is 1234567 times 89?",
    "In which years, 1914-1918 or 1939-1945, was it built?",
    "What happened on 2024-03-17 at 12:30:45?",
    "How do I reset my password?",
    "Why is my password wrong?",
    "The password is not accepted, why?",
    "What is a token?",
    "My token is expired, what now?",
    "What is the API key of a map for?",
    "Which ISBN is 978-3-16-148410-0?",
    "What is the capital of France?",
    "Why is the sky blue?",
    "What does supercalifragilisticexpialidocious mean?",
    "Who wrote get_mapping_from_secret_type_to_class?",
    "What is 3.14159265358979 called?",
    "Wie hoch ist der Turm von Brennholt?",
    "",
]


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_secret_is_replaced_and_the_rest_stays_when_it_is_planted(text, secret):
    scrubbed = scrubbing.scrub(text)
    assert secret not in scrubbed
    assert "<" in scrubbed and ">" in scrubbed
    kept = [word for word in text.split()[:2] if word.isalpha() and word not in secret]
    assert all(word in scrubbed for word in kept)


@pytest.mark.parametrize("text", KEPT)
def test_question_is_whole_when_it_holds_nothing_secret(text):
    assert scrubbing.scrub(text) == text


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_nothing_more_is_replaced_when_it_was_scrubbed_before(text, secret):
    once = scrubbing.scrub(text)
    assert scrubbing.scrub(once) == once


def test_placeholder_says_what_stood_there():
    text = "Mail a@b.org or call +49 30 901820, then pay to DE89370400440532013000."
    assert scrubbing.scrub(text) == ("Mail <e-mail> or call <phone number>, then pay to <IBAN>.")


def test_questions_of_the_recipe_are_whole():
    asked = [question for fact in conversations.known_facts() for question in fact.questions]
    asked += [q.format(x="Brindlewick", y="Tarnvik") for f in families.load() for q in f.questions]
    changed = [question for question in asked if scrubbing.scrub(question) != question]
    assert len(changed) < 0.001 * len(asked), changed


def test_questions_of_clinc150_are_whole():
    folder = os.environ.get("SKILLMESH_DATA")
    if folder is None:
        pytest.skip("SKILLMESH_DATA names no folder with clinc150.json")
    content = json.loads((pathlib.Path(folder) / "clinc150.json").read_text())
    asked = [text for text, _ in content["test"][::5]]
    changed = [question for question in asked if scrubbing.scrub(question) != question]
    assert len(asked) >= 500
    assert len(changed) < 0.02 * len(asked), changed


def test_long_text_is_scrubbed_soon():
    text = "a1 " * 1_000 + "1-" * 1_000 + "x.y@" * 500 + ":f" * 500 + "password " * 100
    assert isinstance(scrubbing.scrub(text[:8_000]), str)
