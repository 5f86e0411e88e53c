"""Takes personal data and secrets out of a question before it leaves the router.

Whatever looks like one is replaced by a placeholder that says what stood there, such as
`<e-mail>`, so that the question can still be read. Patterns of secrets are those of
detect-secrets, phone numbers those of phonenumbers, check digits those of python-stdnum; all of
them work offline. Names of people stay: without a model nobody tells them from names of things,
and a question is often about one.
"""

from __future__ import annotations

import collections
import functools
import ipaddress
import math
import re
from collections.abc import Iterator

import phonenumbers
from detect_secrets.core.plugins import util as plugins
from detect_secrets.plugins import base as plugin_base
from stdnum import iban, luhn

_REGIONS = (None, "US", "GB", "DE", "FR")
"""Where a number without a country code may be from; None: numbers with one."""
_LEAST_PHONE_DIGITS = 9
_LEAST_RANDOM = 20
"""Characters of a string that may be a key nobody has a pattern for."""
_LEAST_ENTROPY_BITS = 3.3
"""Of a character; English words have less, random keys more."""
_LEAST_HEX_ENTROPY_BITS = 2.8

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    re.DOTALL,
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,200}(?=@)")
_EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_KNOWN_KEYS = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}"
    r"|\bAIza[\w-]{30,}|\bhf_[A-Za-z0-9]{20,}|\bxox[a-z]-[\w-]{10,}|\bglpat-[\w-]{16,}"
    r"|\bya29\.[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
)
_BEARER = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]{8,}|(?<=\bbasic )[A-Za-z0-9+/]{12,}={0,2}")
_SECRET_NAMES = (
    r"pass\s?(?:word|wd|phrase|code)|pwd|secret(?:[ _-]?key)?|(?:api|access|private)[ _-]?key"
    r"|(?:access|auth|api|session|bearer|refresh|security)?[ _-]?token|credentials?|pin"
    r"|client[ _-]secret|passwort|kennwort"
)
_TOLD_SECRET = re.compile(
    rf"(?i)\b(?:\w+[_-])?(?:{_SECRET_NAMES})\b[\"']?"
    r"(?:\s*(?:[:=]+>?|:=)\s*|\s+(?:is|was|are|ist|lautet|would\sbe)\s*:?\s+)"
    r"[\"'`]?(?P<secret>[^\s\"'`,;]{3,})"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?:[ -]?[A-Z0-9]{1,4})?\b", re.I)
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d])")
_SOCIAL = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
_VERSION_BEFORE = re.compile(
    r"(?i)(?:\bversions?|\brelease|\bbuild|\bfirmware|\bv\.?|\bsection|\bchapter|\brule|\bclause"
    r"|\barticle|\bparagraph|§)\s*$|\bversion\s+\S+\s+(?:to|and|or)\s*$"
)
_RANDOM = re.compile(rf"[A-Za-z0-9+/_=-]{{{_LEAST_RANDOM},}}")
_NO_SECRETS = frozenset(
    """a an and any are at correct case-sensitive considered expired for forgotten good hard in
    incorrect invalid it lost missing needed not now of on optional or passed required reset
    right safe secure sent set stolen stored strong that the there this to too unknown unsafe used
    valid weak what when where which why wrong your""".split()
)
"""What follows `the password is` without being one."""


def scrub(text: str) -> str:
    """The text with a placeholder for everything that looks personal or secret."""
    text = _PRIVATE_KEY.sub("<private key>", text)
    text = _URL_PASSWORD.sub("<password>", text)
    text = _TOLD_SECRET.sub(_told_secret, text)
    text = _EMAIL.sub("<e-mail>", text)
    text = _BEARER.sub("<token>", text)
    text = _KNOWN_KEYS.sub("<key>", text)
    for pattern in _patterns_of_secrets():
        text = pattern.sub("<key>", text)
    text = _RANDOM.sub(_random, text)
    text = _IBAN.sub(_iban, text)
    text = _CARD.sub(_card, text)
    text = _SOCIAL.sub("<social security number>", text)
    text = _IPV6.sub(_ip, text)
    text = _IPV4.sub(_ip, text)
    return _without_phones(text)


@functools.cache
def _patterns_of_secrets() -> tuple[re.Pattern[str], ...]:
    """Those of detect-secrets that need no words around them; addresses and passwords are ours."""
    passed_over = {"IPPublicDetector", "BasicAuthDetector", "KeywordDetector"}
    return tuple(
        re.compile(pattern.pattern, pattern.flags)
        for found in plugins.get_mapping_from_secret_type_to_class().values()
        if found.__name__ not in passed_over and issubclass(found, plugin_base.RegexBasedDetector)
        for pattern in found.denylist
    )


def _told_secret(match: re.Match[str]) -> str:
    secret = match["secret"]
    bare = secret.strip(".?!)(").casefold()
    if not bare or bare in _NO_SECRETS or secret.startswith("<"):
        return match[0]
    kept = len(secret) - len(secret.rstrip(".?!"))
    end = secret[len(secret) - kept :] if kept else ""
    return f"{match[0][: match.start('secret') - match.start()]}<secret>{end}"


def _random(match: re.Match[str]) -> str:
    """A long string that only a machine writes: letters and digits mixed, no words."""
    found = match[0]
    is_hex = re.fullmatch(r"[0-9a-fA-F-]+", found) is not None
    letters = sum(character.isalpha() for character in found)
    digits = sum(character.isdigit() for character in found)
    if not letters or not digits:
        return found
    if max(len(run) for run in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+|\W+|_+", found)) > 12:
        return found
    least = _LEAST_HEX_ENTROPY_BITS if is_hex else _LEAST_ENTROPY_BITS
    enough = digits >= 3 and _entropy_bits(found) >= least
    return "<key>" if enough else found


def _entropy_bits(text: str) -> float:
    counts = collections.Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _iban(match: re.Match[str]) -> str:
    # The pattern may have taken a word that follows: the longest valid beginning counts.
    words = match[0]
    for end in range(len(words), 14, -1):
        if (end == len(words) or not words[end].isalnum()) and iban.is_valid(words[:end]):
            return f"<IBAN>{words[end:]}"
    return words


def _card(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match[0])
    return "<card number>" if luhn.is_valid(digits) and len(set(digits)) > 1 else match[0]


def _ip(match: re.Match[str]) -> str:
    """An address; four numbers with dots behind `version` are none, nor are those of examples."""
    before = match.string[max(0, match.start() - 40) : match.start()]
    if _VERSION_BEFORE.search(before):
        return match[0]
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    plain = address.is_loopback or address.is_unspecified
    return match[0] if plain else "<IP address>"


def _without_phones(text: str) -> str:
    if sum(character.isdigit() for character in text) < _LEAST_PHONE_DIGITS:
        return text
    spans = sorted(set(_phones(text)), reverse=True)
    taken_from = len(text)
    for start, end in spans:
        if end <= taken_from:
            text = f"{text[:start]}<phone number>{text[end:]}"
            taken_from = start
    return text


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for region in _REGIONS:
        for match in phonenumbers.PhoneNumberMatcher(text, region):
            # Bare digits may be anything: a part number, a sum, a year.
            written = match.raw_string
            punctuated = re.search(r"[+() ./-]", written.strip()) is not None
            digits = sum(character.isdigit() for character in written)
            told = re.search(
                r"(?i)\b(?:phone|call|mobile|cell|tel|telefon|fax|sms|text|number|dial|reach)",
                text[max(0, match.start - 40) : match.start],
            )
            if digits >= _LEAST_PHONE_DIGITS and (punctuated or told):
                yield match.start, match.end
