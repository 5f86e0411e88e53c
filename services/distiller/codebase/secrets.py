"""Takes secrets and personal data out of source code, so that it still parses.

Patterns of keys are those of `shared.scrubbing`. Code has other rules than prose: only strings and
comments are looked at, since a name is no secret; what is assigned to a name such as `password`
counts; and a placeholder is an identifier, `REMOVED_KEY`, because it may stand anywhere. Numbers
such as 1234567890 stay, and so do addresses of domains reserved for examples, templates such as
`{password}` and long names made of words. Of a private key the armour stays, its body goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence

import phonenumbers
from detect_secrets.filters import heuristic
from detect_secrets.plugins import high_entropy_strings

from services.distiller.codebase import definitions, languages, literals
from shared import scrubbing

_PLACEHOLDERS = {
    "private key": "REMOVED_PRIVATE_KEY",
    "password": "REMOVED_PASSWORD",
    "e-mail": "REMOVED_EMAIL",
    "phone number": "REMOVED_PHONE",
    "card number": "REMOVED_CARD",
}
_KEY = "REMOVED_KEY"
_MOST_KEY_CHARACTERS = 4_000
"""Of a private key whose end is missing."""
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=]{16,}|(?<![\w+/=])[A-Za-z0-9+/=]{2,}(?=[\s\"'+,]*-----END)")
_GAP = re.compile(r"\s{40,}")
_ESCAPED_SPACE = re.compile(r"\\[nrt]")
_ARMOUR_END = "-----END"
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_LEAST_MEAN_WORD = 2.8
"""Characters; random strings change between letters, capitals and digits sooner."""
_NO_WORD = re.compile(r"(?i)[^aeiouy\d]{5,}|[^aeiouy\d]{4}$")
_NAME = re.compile(
    r"[a-z]+\d{0,2}(?:[_-](?:[a-z]+\d{0,2}|\d{1,4}))*|[A-Z]+\d{0,2}(?:_[A-Z\d]{1,12})*"
)
_OPEN = re.compile(r"(?i)(?:sk|pk|rk)[-_]")
"""Beginnings of keys that names have, too."""
_TEMPLATED = re.compile(
    r"(?i)\{[\w.!:\[\]]*\}|\{\{|\$\{|\$\(|^\$\w+$|%[sdr]|%\(|^<.*>$|\.\.\.|\*\*\*|xxx|REMOVED_"
    r"|\(\?|\[\^"
)
_OF_TYPES = re.compile(r"(?i)u?(?:int|float|bytes|str|f|i|u|sha|md|utf-?|x|base|v)\d+(?:_t)?")
_RESERVED = re.compile(
    r"(?i)^git@|^(?:[\w.+-]+@)?(?:[\w.-]+\.)?example(?:\.(?:com|org|net|edu))?$"
    r"|\.(?:example|invalid|test|localhost|local)$|@users\.noreply\.github\.com$"
)
_IN_ADDRESS = re.compile(r"://[^\s/:@\"']*:[^\s/@\"']*$")
_PLACEHOLDER = "REMOVED_"
_STRONG = rf"{scrubbing.PASSWORD_NAMES}|{scrubbing.KEY_NAMES}|account[ _-]?key|secret"
_LOOSE = rf"(?:(?<![A-Za-z])|(?-i:(?<=[a-z])(?=[A-Z])))(?:{scrubbing.LOOSE_NAMES})"
_TYPE = r"(?:\s?:\s?(?:&(?:'\w{1,20}\s)?)?[\w.\[\]|<>:? ]{1,40}|\s[\w.*\[\]]{1,40})"
"""Of a variable, behind a colon or, in Go, without one."""
_QUOTED = (
    r"(?:[rbuf]{1,2}|@|L)?(?P<quote>\"\"\"|'''|[\"'`])"
    r"(?P<secret>(?:\\.|(?!(?P=quote))[^\\\n]){3,200})(?P=quote)"
)
_ASSIGNED = re.compile(
    rf"(?i)(?:(?P<strong>{_STRONG})|{_LOOSE})(?P<suffix>\w*)[\"'`]?\s?\]?(?:\[\w{{0,20}}\])?"
    rf"(?:{_TYPE}\s?(?==))?\s*(?P<sign>=>|:?={{1,3}}|!==?|:|,|\(|\{{)\s*(?:\(\s*)?"
    rf"(?P<wrapped>[\w.:]{{1,40}}\(\s*|default\s?=\s*)?{_QUOTED}"
)
"""`password = "X"`, `"api_key": "X"`, `set_token("X")`, `password: &str = str("X")`."""
_DEFINED = re.compile(
    rf"(?i)#[ \t]*define[ \t]+\w{{0,40}}?(?:{_STRONG})(?P<suffix>\w*)[ \t]+{_QUOTED}"
)
"""`#define PASSWORD "X"`."""
_MENTIONED = re.compile(
    rf"(?i)(?:{_STRONG})[\"']?(?:=|:[ \t]*|[ \t]+=[ \t]+)"
    r"(?P<secret>[^\s\"'`,;&<>(){}\[\]\\]{4,200})"
)
"""`password=X` within a string or a comment."""
_NO_VALUE_OF = re.compile(
    r"(?i)(?:env|names?|fields?|file|path|url|uri|header|label|param|prompt|hint|error|message|msg"
    r"|type|regex|pattern|prefix|column|help|text|title|format|algorithm|policy|var|kind|s)$"
)
"""Ends of names that speak about a secret and do not hold one."""
_NO_VALUES = frozenset(
    """string str text int integer number object boolean bool none null nil true false undefined
    required optional hidden input test""".split()
)
_NAMED = re.compile(rf"(?i){scrubbing.PASSWORD_NAMES}|key|token|secret|credential")
_PHONE = re.compile(r"(?<![\w+])\+\d{1,3}[ ().-]{1,2}\d[\d ().-]{6,16}\d(?!\w)")
_CARD = re.compile(r"(?<![\d.-])\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?![\d.-])")
_VAGUE = "Artifactory Credentials"
"""Words in capitals look like these, too, but have no digits."""
_ENTROPY = high_entropy_strings.Base64HighEntropyString()
_HEX_ENTROPY = high_entropy_strings.HexHighEntropyString()
_LEAST_HEX = 32
"""Digits of a key or a digest in hexadecimal."""
_LEAST_LOOSE = 8
"""Characters of a value whose name may mean something else."""


@dataclasses.dataclass(frozen=True)
class Removed:
    """A secret that was taken out; never the secret itself."""

    path: str
    line: int
    """From 1."""
    kind: str
    """Such as `AWS Access Key` or `e-mail`."""


@dataclasses.dataclass(frozen=True, order=True)
class _Span:
    start: int
    end: int
    kind: str


def clean(
    text: str, language: languages.Language | None, path: str = ""
) -> tuple[str, list[Removed]]:
    """The text with an identifier such as `REMOVED_KEY` for each secret, and what was removed.

    The number of lines stays as it is.

    Args:
        text: source code, or a part of it.
        language: its own; None, or a text that is not of it: all is looked at, as if in a string.
        path: for the report.
    """
    found = list(_candidates(_masked(text)))
    if not found:
        return text, []
    if language is not None:
        with contextlib.suppress(definitions.DoesNotParseError):
            found = _within(found, literals.spans(text, language))
    pieces: list[str] = []
    removed: list[Removed] = []
    at, line, counted = 0, 1, 0
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        if span.end <= at:
            continue
        start = max(span.start, at)
        pieces.append(text[at:start])
        if start == span.start:  # Else the rest of what was just replaced.
            pieces.append(_PLACEHOLDERS.get(span.kind, _KEY))
            line += text.count("\n", counted, start)
            counted = start
            removed.append(Removed(path, line, span.kind))
        at = span.end
    pieces.append(text[at:])
    return "".join(pieces), removed


def _masked(text: str) -> str:
    """The text at the same length, fit for the patterns.

    A key after an escaped newline does not begin with its `n`; long gaps, over which some patterns
    go back and forth, are none.
    """
    if "\\" in text:
        text = _ESCAPED_SPACE.sub("  ", text)
    return _GAP.sub(lambda gap: "\x01" * len(gap[0]), text)


def _within(found: Sequence[_Span], literal: Sequence[tuple[int, int]]) -> list[_Span]:
    """Those that begin in a string or a comment, cut where it ends."""
    kept: list[_Span] = []
    at = 0
    for span in sorted(found):
        while at < len(literal) and literal[at][1] <= span.start:
            at += 1
        if at < len(literal) and literal[at][0] <= span.start:
            kept.append(dataclasses.replace(span, end=min(span.end, literal[at][1])))
    return kept


def _candidates(text: str) -> Iterator[_Span]:
    """What looks like a secret, in code as well; one may be found twice."""
    yield from _private_keys(text)
    if "://" in text:
        for match in scrubbing.URL_PASSWORD.finditer(text):
            start = match.start() + match[0].index(":") + 1
            told = text[start : match.end()]
            if not _is_no_secret(told) and not re.search(r"[\"'`()\\]", match[0]):
                yield _Span(start, match.end(), "password")
    yield from _assigned(text)
    yield from _keys(text)
    if "@" in text:
        for match in scrubbing.EMAIL.finditer(text):
            in_address = _IN_ADDRESS.search(text, max(0, match.start() - 120), match.start())
            host = match[0].partition("@")[2]
            reserved = _RESERVED.search(match[0]) or _RESERVED.search(host)
            if not reserved and not in_address and not match[0].startswith(_PLACEHOLDER):
                yield _Span(*match.span(), "e-mail")
    for match in _CARD.finditer(text):
        if scrubbing.is_card(match[0]):
            yield _Span(*match.span(), "card number")
    if "+" in text:
        for match in _PHONE.finditer(text):
            if _is_phone(match[0]):
                yield _Span(*match.span(), "phone number")


def _private_keys(text: str) -> Iterator[_Span]:
    if "PRIVATE KEY" not in text:
        return
    for match in scrubbing.PRIVATE_KEY.finditer(text):
        whole = _ARMOUR_END in match[0]
        end = match.end() if whole else min(match.end(), match.start() + _MOST_KEY_CHARACTERS)
        for part in _KEY_BODY.finditer(text, match.start(), end):
            yield _Span(*part.span(), "private key")


def _assigned(text: str) -> Iterator[_Span]:
    for match in _ASSIGNED.finditer(text):
        if not _NO_VALUE_OF.search(match["suffix"]) and _is_value(match):
            yield _Span(*match.span("secret"), "password")
    for match in _DEFINED.finditer(text):
        if not _NO_VALUE_OF.search(match["suffix"]) and not _is_no_secret(match["secret"]):
            yield _Span(*match.span("secret"), "password")
    for match in _MENTIONED.finditer(text):
        told = match["secret"].rstrip(".:?!")
        before = text[max(0, match.start() - 16) : match.start()]
        told_twice = before.endswith((_PLACEHOLDER, f"{_PLACEHOLDER}PRIVATE_"))
        if not told_twice and scrubbing.is_like_a_secret(told) and not _is_no_secret(told):
            start = match.start("secret")
            yield _Span(start, start + len(told), "password")


def _is_value(match: re.Match[str]) -> bool:
    told = match["secret"]
    if _is_no_secret(told) or (match["wrapped"] and not match["strong"]):
        return False
    words = told.split()
    if len(words) > 1:  # A sentence, or a phrase that is one.
        plain = all(word.isalnum() and word.islower() for word in words)
        told_by_sign = match["sign"] in ("=", ":", ":=", "=>")
        return (
            plain
            and told_by_sign
            and re.fullmatch(scrubbing.PASSWORD_NAMES, match["strong"] or "", re.I) is not None
            and not scrubbing.NO_SECRETS.intersection(words)
        )
    if match["strong"] and match["sign"] not in (",", "(") and not match["wrapped"]:
        return True
    return (
        len(told) >= _LEAST_LOOSE
        and sum(character.isdigit() for character in told) >= 2
        and scrubbing.is_like_a_secret(told)
        and not _is_of_words(told)
    )


def _is_no_secret(told: str) -> bool:
    """A template, a type, or words about a secret."""
    plain = told.strip(".?!)(").casefold()
    about = _NAMED.search(plain) is not None and not any(c.isdigit() for c in plain)
    return (
        not plain
        or about
        or plain in scrubbing.NO_SECRETS
        or plain in _NO_VALUES
        or _TEMPLATED.search(told) is not None
        or _OF_TYPES.fullmatch(plain) is not None
        or len(set(plain)) == 1
    )


def _keys(text: str) -> Iterator[_Span]:
    for kind, pattern in scrubbing.patterns_of_secrets():
        for match in pattern.finditer(text):
            if "PRIVATE KEY" in match[0]:
                continue
            yield from _parts(match, kind)
    for match in scrubbing.KNOWN_KEYS.finditer(text):
        if not _OPEN.match(match[0]) or not _NAME.fullmatch(match[0]):
            yield _Span(*match.span(), "key")
    for match in scrubbing.BEARER.finditer(text):
        if not _NAME.fullmatch(match[0]) and not _is_of_words(match[0]):
            yield _Span(*match.span(), "token")
    for match in scrubbing.RANDOM.finditer(text):
        if _is_random(match[0]):
            yield _Span(*match.span(), "random string")


def _parts(match: re.Match[str], kind: str) -> Iterator[_Span]:
    """The groups that hold the secret; without such the match, but for what only surrounds it."""
    spans = [match.span(group) for group in range(1, match.re.groups + 1)]
    spans = [(start, end) for start, end in spans if end - start >= 16]
    if not spans:
        found = match[0]
        start = match.start() + len(found) - len(found.lstrip(" \t\n\"'`=:"))
        end = match.end() - len(found) + len(found.rstrip(" \t\n\"'`=:,;"))
        spans = [(start, end)]
    for start, end in spans:
        found = match.string[start:end]
        if kind != _VAGUE or any(character.isdigit() for character in found):
            yield _Span(start, end, kind)


def _is_random(found: str) -> bool:
    if _is_of_words(found) or scrubbing.UUID.fullmatch(found) or _PLACEHOLDER in found:
        return False
    if heuristic.is_sequential_string(found):
        return False
    if len(found) >= _LEAST_HEX and re.fullmatch("(?=.*[a-fA-F])[0-9a-fA-F]+", found):
        entropy = _HEX_ENTROPY.calculate_shannon_entropy(found)
        return bool(entropy > _HEX_ENTROPY.entropy_limit)
    mixed = all(re.search(kind, found) for kind in ("[a-z]", "[A-Z]", r"\d"))
    entropy = _ENTROPY.calculate_shannon_entropy(found) if mixed else 0.0
    return scrubbing.is_random(found) or bool(entropy > _ENTROPY.entropy_limit)


def _is_of_words(found: str) -> bool:
    """A name or a path: long words one can say, some numbers between them."""
    if re.fullmatch("[0-9a-fA-F]+", found):
        return False
    words = _WORD.findall(found)
    long = sum(map(len, words)) >= _LEAST_MEAN_WORD * len(words)
    return long and not any(_NO_WORD.search(word) for word in words)


def _is_phone(found: str) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(found)))
    except phonenumbers.NumberParseException:
        return False
