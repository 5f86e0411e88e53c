"""Secrets of many kinds, made anew at each run, so that neither this file nor any other holds one.

The prefixes of keys are put together here, so that no scanner takes the file for one that leaks.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import string

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_MIXED = string.ascii_letters + string.digits
_LOWER = string.ascii_lowercase + string.digits
_UPPER = string.ascii_uppercase + string.digits
_HEX = "0123456789abcdef"
_PEM, _NO_PASSWORD = serialization.Encoding.PEM, serialization.NoEncryption()
_OLD = serialization.PrivateFormat.TraditionalOpenSSL
_OPENSSH = serialization.PrivateFormat.OpenSSH
_PIECE = 12
"""Characters: a part of a secret this long must not be left either."""


@dataclasses.dataclass(frozen=True)
class Planted:
    """One secret and the line of code that gives it away."""

    kind: str
    secret: str
    """May have several lines."""
    code: str
    """Python; a string or a comment holds the secret."""

    def leaked(self, text: str) -> bool:
        """Whether the text holds the secret or a telling part of it."""
        lines = [line for line in self.secret.split("\n") if "-----" not in line]
        pieces = [
            line[at : at + _PIECE]
            for line in lines
            for at in range(0, max(1, len(line) - _PIECE + 1), _PIECE // 2)
        ]
        return any(piece in text for piece in pieces if piece)


def planted(seed: int) -> list[Planted]:
    """One secret of each kind; all but the private keys are the same for the same seed."""
    rng = random.Random(seed)

    def some(count: int, of: str = _MIXED) -> str:
        return "".join(rng.choice(of) for _ in range(count))

    found: list[Planted] = []

    def add(kind: str, secret: str, code: str) -> None:
        found.append(Planted(kind, secret, code.replace("SECRET", secret)))

    add("AWS access key", "AK" + "IA" + some(16, _UPPER), 'client("s3", "SECRET")')
    add("AWS secret key", some(40, _MIXED + "+/"), 'aws_secret_access_key = "SECRET"')
    add("GitHub token", "gh" + "p_" + some(36), 'headers = {"Authorization": "token SECRET"}')
    fine = "github" + "_pat_" + some(22) + "_" + some(59)
    add("GitHub fine-grained token", fine, 'login("SECRET")')
    add("GitLab token", "gl" + "pat-" + some(20), 'login("SECRET")')
    slack = f"xox{'b'}-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}"
    add("Slack token", slack, 'bot = start("SECRET")')
    hook = f"https://hooks.slack.com/services/T{some(8, _UPPER)}/B{some(8, _UPPER)}/{some(24)}"
    add("Slack webhook", hook, 'post("SECRET", text)')
    add("Stripe key", "sk" + "_live_" + some(24), 'stripe.charge("SECRET", 12)')
    add("Twilio key", "S" + "K" + some(32, _HEX), 'call("SECRET")')
    add("SendGrid key", "S" + "G." + some(22) + "." + some(43), 'mail("SECRET")')
    add("npm token", "np" + "m_" + some(36), "# //registry.npmjs.org/:_authToken=SECRET")
    add("PyPI token", "pypi-" + "AgEIcHlwaS5vcmc" + some(90), 'upload("SECRET")')
    openai = "s" + "k-" + some(20) + "T3BlbkFJ" + some(20)
    add("OpenAI key", openai, 'ask("SECRET")')
    add("Anthropic key", "sk" + "-ant-api03-" + some(95, _MIXED + "-_"), 'ask("SECRET")')
    add("Google API key", "AI" + "za" + some(35, _MIXED + "-_"), 'maps("SECRET")')
    azure = base64.b64encode(rng.randbytes(64)).decode()
    add("Azure storage key", azure, 'connect("AccountName=x;AccountKey=SECRET;Suffix=y")')
    add("JSON web token", _token(rng), 'verify("SECRET")')
    for kind, key in _private_keys():
        add(kind, key, 'pem = """SECRET"""')
    escaped = found[-1].secret.replace("\n", "\\n")
    found.append(Planted("private key on one line", found[-1].secret, f'load("{escaped}")'))
    add("address with password", some(14), 'get("https://deploy:SECRET@ci.corp.io/job")')
    add("database password", some(12), 'DSN = "postgresql://app:SECRET@db.corp.io:5432/main"')
    add("password of words", "tulip" + some(4, string.digits), 'password = "SECRET"')
    add("password of letters", some(9, string.ascii_lowercase), 'connect(password="SECRET")')
    add("password in a dictionary", some(10), 'settings = {"db_password": "SECRET"}')
    add("password with signs", some(5) + "!$#" + some(5), "passwd: str = 'SECRET'")
    add("password in a comment", some(6) + "1!x", "# old password: SECRET")
    add("hex string", some(40, _HEX), 'sign(body, "SECRET")')
    add("base64 string", some(44, _MIXED + "+/"), 'sign(body, b"SECRET")')
    add("Discord token", f"M{some(23)}.{some(6)}.{some(27)}", 'bot("SECRET")')
    add("Telegram token", f"{some(9, '123456789')}:{some(35)}", 'bot("SECRET")')
    add("Artifactory key", "AK" + "C" + some(60), 'fetch("SECRET")')
    add("Hugging Face token", "hf" + "_" + some(34), 'hub("SECRET")')
    add("bearer token", some(30), 'headers["Authorization"] = "Bearer SECRET"')
    add("Mailchimp key", some(32, _HEX) + "-us12", 'list_members("SECRET")')
    add("Square secret", "sq0" + "csp-" + some(43), 'pay("SECRET")')
    add("author's address", f"{some(8, string.ascii_lowercase)}@corp.io", "# Written by SECRET")
    add("card number", "4111 1111 1111 1111", "# paid with SECRET")
    add("phone number", "+49 30 901820" + some(2, string.digits), "# on call: SECRET")
    return found


def _token(rng: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": str(rng.randrange(10**9)), "admin": True})
    data = [*(json.dumps(part).encode() for part in parts), rng.randbytes(32)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in data)


def _private_keys() -> list[tuple[str, str]]:
    """In their formats of a file; a new one each time."""
    made = (
        ("RSA", rsa.generate_private_key(65537, 2048), _OLD),
        ("OpenSSH", ed25519.Ed25519PrivateKey.generate(), _OPENSSH),
        ("EC", ec.generate_private_key(ec.SECP256R1()), _OLD),
    )
    return [
        (f"{kind} private key", key.private_bytes(_PEM, form, _NO_PASSWORD).decode().strip())
        for kind, key, form in made
    ]
