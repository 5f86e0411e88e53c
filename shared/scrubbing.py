"""Takes personal data and secrets out of a text, such as a question that leaves the router.

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
_LEAST_PHONE_DIGITS, _LEAST_WRITTEN_DIGITS = 7, 9
_LEAST_RANDOM = 20
"""Characters of a string that may be a key nobody has a pattern for."""
_LEAST_ENTROPY_BITS = 3.3
"""Of a character; English words have less, random keys more."""
_LEAST_HEX_ENTROPY_BITS = 2.8

PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    re.DOTALL,
)
URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]{1,100}:[^\s/@]{1,200}(?=@)")
EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
KNOWN_KEYS = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}"
    r"|\bAIza[\w-]{30,}|\bhf_[A-Za-z0-9]{20,}|\bxox[a-z]-[\w-]{10,}|\bglpat-[\w-]{16,}"
    r"|\bya29\.[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
)
BEARER = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]{8,}|(?<=\bbasic )[A-Za-z0-9+/]{12,}={0,2}")
PASSWORD_NAMES = r"pass\s?(?:word|wd|phrase|code)|pwd|passwort|kennwort"
KEY_NAMES = (
    r"(?:api|access|private|secret)[ _-]?key|client[ _-]secret"
    r"|(?:access|auth|api|session|bearer|refresh|security)[ _-]token"
)
LOOSE_NAMES = r"secret|key|pass|pw|credentials?|token|pin"
"""Words for secrets that mean other things, too."""
_IS = r"\s+(?:is|was|are|ist|lautet|would\sbe)\s*:?\s+"
_SECRET = r"[\"'`]?(?P<secret>[^\s\"'`,;]{3,})"
_SET_SECRET = re.compile(
    rf"(?i)\b(?:\w+[_-])?(?:(?:{PASSWORD_NAMES}|{KEY_NAMES})\b[\"']?\s*(?:[:=]+>?)"
    rf"|(?:{LOOSE_NAMES})[\"']?\s?=)\s*{_SECRET}"
)
"""`password: X`, `token=X`; any word may be one."""
_TOLD_PASSWORD = re.compile(rf"(?i)\b(?:{PASSWORD_NAMES})\b[\"']?{_IS}{_SECRET}")
"""`my password is X`; any word but those that speak about passwords."""
_BARE_PASSWORD = re.compile(
    rf"(?i)\b(?:{PASSWORD_NAMES})\b[\"']?\s+[\"'`]?(?P<secret>[^\s\"'`,;]{{4,}})"
)
"""`password X`; what looks like one."""
_TOLD_SECRET = re.compile(
    rf"(?i)\b(?:{PASSWORD_NAMES}|{KEY_NAMES}|{LOOSE_NAMES})\b[\"']?"
    rf"(?:(?:\s+\w+){{0,4}}?{_IS}|\s*:\s*){_SECRET}"
)
"""`the token of Ann is X`, `pin: X`; what looks like one, or is a number."""
_NUMBERED = re.compile(
    r"(?i)\b(?:cvv|cvc|csc|pin(?:\s?code)?|passport|driv\w+ licen[cs]e|social security|ssn"
    r"|national insurance|tax id)\b(?:\s+(?:number|no\.?|code))?(?:\s+is)?[\s:#=]*"
    r"(?P<secret>(?=[A-Z-]*\d)[A-Z0-9-]{3,14}\d[A-Z0-9]*|\d{3,14})\b"
)
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I)
_SPELT_EMAIL = re.compile(
    r"(?i)\b[\w.+-]{2,64}\s?[(\[]?\bat\b[)\]]?\s?[\w-]{2,63}\s?[(\[]?\bdot\b[)\]]?\s?"
    r"(?:com|org|net|edu|gov|info|io|de|fr|uk|eu|ch|at)\b"
)
_IBAN = re.compile(r"\b(?=([A-Z]{2}\d{2}[A-Z0-9 -]{11,36}))", re.I)
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d])")
_SOCIAL = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
_ABOUT_VERSIONS = re.compile(
    r"(?i)\b(?:versions?|releases?|build|firmware|up(?:grade|date)\w*|downgrade|changelog|v\.?"
    r"|sections?|chapters?|rules?|clauses?|articles?|paragraphs?)\b|§"
)
_ABOUT_NETWORKS = re.compile(
    r"(?i)\b(?:ip|address|host|server|router|gateway|ping|ssh|subnet|dns|port|connect\w*|firewall)\b"
)
_NANP = re.compile(r"(?<![\w.-])(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])")
"""North American numbers, also those of areas that do not exist."""
_CALLED = re.compile(
    r"(?i)\b(?:phone|call|mobile|cell|tel|telefon|text|sms|dial|whatsapp|fax)\b\.?"
    r"(?:\W+(?:number|no|is|at|me|us|him|her|on)\b){0,4}\W{0,3}(?P<number>\+?\d{7,15})\b"
)
RANDOM = re.compile(rf"[A-Za-z0-9+/_=-]{{{_LEAST_RANDOM},}}")
NO_SECRETS = frozenset(
    """a an and any are at correct case-sensitive considered expired for forgotten good hard in
    incorrect invalid it lost missing needed not now of on optional or passed required reset
    right safe secure sent set stolen stored strong that the there this to too unknown unsafe used
    valid weak what when where which why wrong your""".split()
)
"""What follows `the password is` without being one."""


def scrub(text: str) -> str:
    """The text with a placeholder for everything that looks personal or secret."""
    text = PRIVATE_KEY.sub("<private key>", text)
    text = URL_PASSWORD.sub("<password>", text)
    text = _SET_SECRET.sub(_any_word, text)
    text = _TOLD_PASSWORD.sub(_any_word, text)
    text = _BARE_PASSWORD.sub(_if_like_a_secret, text)
    text = _TOLD_SECRET.sub(_if_like_a_secret_or_number, text)
    text = _NUMBERED.sub(lambda match: _without(match), text)
    text = EMAIL.sub("<e-mail>", text)
    text = _SPELT_EMAIL.sub("<e-mail>", text)
    text = BEARER.sub("<token>", text)
    text = KNOWN_KEYS.sub("<key>", text)
    for _, pattern in patterns_of_secrets():
        text = pattern.sub("<key>", text)
    text = _without_ibans(text)
    text = UUID.sub("<key>", text)
    text = RANDOM.sub(_random, text)
    text = _CARD.sub(_card, text)
    text = _SOCIAL.sub("<social security number>", text)
    text = _IPV6.sub(_ip, text)
    text = _IPV4.sub(_ip, text)
    return _without_phones(text)


@functools.cache
def patterns_of_secrets() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Those of detect-secrets that need no words around them, each with the kind it finds.

    Addresses and passwords are ours.
    """
    passed_over = {"IPPublicDetector", "BasicAuthDetector", "KeywordDetector"}
    return tuple(
        (kind, re.compile(pattern.pattern, pattern.flags))
        for kind, found in plugins.get_mapping_from_secret_type_to_class().items()
        if found.__name__ not in passed_over and issubclass(found, plugin_base.RegexBasedDetector)
        for pattern in found.denylist
    )


def _any_word(match: re.Match[str]) -> str:
    bare = match["secret"].strip(".?!)(").casefold()
    return match[0] if not bare or bare in NO_SECRETS else _without(match)


def _if_like_a_secret_or_number(match: re.Match[str]) -> str:
    number = re.fullmatch(r"\d{4,}[.?!]*", match["secret"])
    return _without(match) if number else _if_like_a_secret(match)


def _if_like_a_secret(match: re.Match[str]) -> str:
    return _without(match) if is_like_a_secret(match["secret"]) else match[0]


def is_like_a_secret(told: str) -> bool:
    """Letters with digits, or signs that words don't have."""
    told = told.strip(".?!)(:")
    letters = any(character.isalpha() for character in told)
    digits = any(character.isdigit() for character in told)
    strange = re.search(r"[!@#$%^&*+=~|\\]|-.*-", told) is not None
    return (letters and digits) or strange


def _without(match: re.Match[str]) -> str:
    """The match with a placeholder for the secret, whose final stop stays."""
    told = match["secret"]
    if told.startswith("<"):
        return match[0]
    start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
    end -= len(told) - len(told.rstrip(".?!")) if told.rstrip(".?!") else 0
    return f"{match[0][:start]}<secret>{match[0][end:]}"


def _random(match: re.Match[str]) -> str:
    return "<key>" if is_random(match[0]) else match[0]


def is_random(found: str) -> bool:
    """Whether only a machine writes such a long string: letters and digits mixed, no words."""
    is_hex = re.fullmatch(r"[0-9a-fA-F-]+", found) is not None
    letters = sum(character.isalpha() for character in found)
    digits = sum(character.isdigit() for character in found)
    if not letters or not digits:
        return False
    if max(len(run) for run in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+|\W+|_+", found)) > 12:
        return False
    least = _LEAST_HEX_ENTROPY_BITS if is_hex else _LEAST_ENTROPY_BITS
    return digits >= 3 and _entropy_bits(found) >= least


def _entropy_bits(text: str) -> float:
    counts = collections.Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _without_ibans(text: str) -> str:
    for match in reversed(list(_IBAN.finditer(text))):
        found = match[1]
        # The pattern may have taken words that follow: the longest valid beginning counts.
        for end in range(len(found), 14, -1):
            if (end == len(found) or not found[end].isalnum()) and iban.is_valid(found[:end]):
                text = f"{text[: match.start()]}<IBAN>{text[match.start() + end :]}"
                break
    return text


def _card(match: re.Match[str]) -> str:
    return "<card number>" if is_card(match[0]) else match[0]


def is_card(found: str) -> bool:
    """Whether a number's last digit is the check digit of its others."""
    digits = re.sub(r"\D", "", found)
    return luhn.is_valid(digits) and len(set(digits)) > 1


def _ip(match: re.Match[str]) -> str:
    """An address; in a question about versions or sections, four numbers with dots are none."""
    if _ABOUT_VERSIONS.search(match.string) and not _ABOUT_NETWORKS.search(match.string):
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
    taken_from = len(text) + 1
    for start, end in sorted(set(_phones(text)), reverse=True):
        if end <= taken_from:
            text = f"{text[:start]}<phone number>{text[end:]}"
            taken_from = start
    return text


def _phones(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _NANP.finditer(text))
    yield from (match.span("number") for match in _CALLED.finditer(text))
    for region in _REGIONS:
        leniency = phonenumbers.Leniency.VALID if region else phonenumbers.Leniency.POSSIBLE
        for match in phonenumbers.PhoneNumberMatcher(text, region, leniency):
            written = match.raw_string
            digits = sum(character.isdigit() for character in written)
            # Bare digits may be anything: a part number, a sum, a year.
            punctuated = re.search(r"[+() ./-]", written.strip()) is not None
            if digits >= _LEAST_WRITTEN_DIGITS and punctuated:
                yield match.start, match.end
