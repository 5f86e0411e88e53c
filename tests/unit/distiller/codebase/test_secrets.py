"""Planted secrets leave code, nothing else does, and what is left parses."""

from __future__ import annotations

import ast
import pathlib

import pytest

from benchmarks.codebase import extraction as bench
from benchmarks.codebase import planted
from services.distiller.codebase import languages, secrets
from tests.unit.distiller.codebase import made

_SECRETS = planted.planted(7)
_KEPT = [
    "count = 1234567890",
    "phone = '1234567890'",
    "limit = 4111111111111111",
    "at = '2024-01-02T03:04:05.678901Z'",
    "password = os.environ['APP_PASSWORD']",
    'password = ""',
    'password = "{password}"',
    'parser.add_argument("--password", help="the password of the server")',
    'PASSWORD_FIELD = "password"',
    'api_key_env = "OPENAI_API_KEY"',
    'url = f"postgres://{user}:{password}@{host}/db"',
    'url = "https://user:password@host/v1"',
    'clone("git@github.com:owner/project.git")',
    'author = "jane@example.com"',
    'name = "get_mapping_from_secret_type_to_class_2"',
    'path = "services/router/version_2/calibration_2024_01.json"',
    'ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"',
    'DIGITS = "0123456789abcdef"',
    'version = "10.2.0.1"',
    "x = a@b.shape",
    "# password: str, as typed by the user",
    'def f(token: str = "utf-8", key="sha256"): pass',
    'raise ValueError("wrong password, try again")',
    'identifier = "0f8fad5b-d9cb-469f-a165-70867728950e"',
    'layer = f"{name}_from_layer_12_of_24"',
    "test_reading_takes_less_than_2_s_on_64_cores_with_1024_rows()",
    'PATTERN = r"-----BEGIN [A-Z ]*PRIVATE KEY-----"',
]


@pytest.mark.parametrize("one", _SECRETS, ids=[one.kind for one in _SECRETS])
def test_no_text_of_any_chunk_holds_a_planted_secret(tmp_path, one):
    code = bench.with_secret(0, one)
    assert one.leaked(code)
    found = made.extract(tmp_path, {"a.py": code})
    assert {chunk.symbol for chunk in found.chunks} == {"step_0", "run_0"}
    assert not found.skipped
    for chunk in found.chunks:
        assert not one.leaked(bench.text_of(chunk))
        ast.parse(chunk.text)
    assert found.removed
    assert all(removed.path == "a.py" for removed in found.removed)
    assert not one.leaked(str(found.removed))


def test_at_least_twenty_kinds_are_planted():
    assert len({one.kind for one in _SECRETS}) >= 20


@pytest.mark.parametrize("seed", range(6))
def test_other_secrets_of_the_same_kinds_go_too(seed):
    for one in planted.planted(seed):
        cleaned, removed = secrets.clean(one.code, languages.PYTHON)
        assert not one.leaked(cleaned), one.kind
        assert removed
        ast.parse(cleaned)
        assert secrets.clean(cleaned, languages.PYTHON) == (cleaned, [])


@pytest.mark.parametrize("code", _KEPT)
def test_code_is_whole_when_it_holds_nothing_secret(code):
    assert secrets.clean(code, languages.PYTHON) == (code, [])


def test_report_says_where_and_what_and_lines_stay():
    key = next(one for one in _SECRETS if one.kind == "RSA private key")
    hook = next(one for one in _SECRETS if one.kind == "Slack webhook")
    text = f'a = 1\n\nkey = """{key.secret}"""\n{hook.code}\nb = 2\n'
    cleaned, removed = secrets.clean(text, languages.PYTHON, "x/y.py")
    assert cleaned.count("\n") == text.count("\n")
    assert {one.kind for one in removed} == {"private key", "Slack Token"}
    assert removed[0] == secrets.Removed("x/y.py", 4, "private key")
    assert removed[-1].line == text[: text.index(hook.code)].count("\n") + 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a.js", "const f = () => { login('SECRET'); return `SECRET`; };"),
        ("a.tsx", "const f = () => { return <b>SECRET</b>; };"),
        ("a.go", 'package a\nfunc F() string { return "SECRET" + `SECRET` }'),
        ("a.rs", '// SECRET\nfn f() -> &str { r#"SECRET"# }'),
        ("A.java", 'class A { /* SECRET */ String f() { return "SECRET"; } }'),
        ("a.c", '#define KEY "SECRET"\nchar *f(void) { /* SECRET ä */ return "SECRET"; }'),
        ("a.cpp", 'auto f() { return R"(SECRET)"; } // SECRET'),
    ],
)
def test_secret_goes_whatever_the_language(tmp_path, path, code):
    token = next(one for one in _SECRETS if one.kind == "GitHub token")
    found = made.extract(tmp_path, {path: code.replace("SECRET", token.secret)})
    assert len(found.removed) == code.count("SECRET")
    assert found.chunks
    assert not any(token.leaked(bench.text_of(chunk)) for chunk in found.chunks)


def test_names_stay_when_they_look_random():
    text = "let aB3xK9mQ2wZ7rT5yU8pL1 = 1;\n"
    javascript = languages.of_path("a.js")
    assert secrets.clean(text, javascript) == (text, [])
    assert secrets.clean(text, None)[0] == "let REMOVED_KEY = 1;\n"


def test_escaped_quote_does_not_end_a_secret():
    text = 'password = "tulip\\"river42"\n'
    cleaned, _ = secrets.clean(text, languages.PYTHON)
    assert cleaned == 'password = "REMOVED_PASSWORD"\n'


def test_this_project_s_own_code_is_left_almost_whole():
    root = pathlib.Path(__file__).parents[4]
    lines, wrong = 0, []
    for path in sorted([*root.glob("services/**/*.py"), *root.glob("shared/**/*.py")]):
        text = path.read_text()
        lines += text.count("\n")
        wrong += secrets.clean(text, languages.PYTHON, path.name)[1]
    assert lines > 20_000
    assert len(wrong) <= lines / 10_000, wrong


def test_long_lines_of_any_signs_are_read_soon():
    text = "x = '" + "password=" * 500 + "://a:" * 500 + "a@" * 500 + "A1" * 2_000 + "'\n"
    text += ("key" + " " * 3_000 + "\n") * 40
    assert isinstance(secrets.clean(text, languages.PYTHON)[0], str)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a.go", 'var password string = "SECRET"'),
        ("a.rs", 'const PASSWORD: &str = "SECRET";'),
        ("a.rs", 'let password: &\'static str = "SECRET";'),
        ("a.c", 'char password[] = "SECRET";'),
        ("a.c", 'static const char password[32] = "SECRET";'),
        ("a.c", '#define DB_PASSWORD "SECRET"'),
        ("a.cpp", 'const std::string password{"SECRET"};'),
        ("a.cpp", 'std::string password = std::string("SECRET");'),
        ("a.py", 'password = (\n    "SECRET"\n)'),
        ("a.py", 'password = str("SECRET")'),
        ("a.py", 'parser.add_argument("--password", default="SECRET")'),
    ],
)
def test_password_goes_however_a_language_declares_it(path, code):
    text = code.replace("SECRET", "hunter2!x9Q")
    cleaned, removed = secrets.clean(text, languages.of_path(path), path)
    assert cleaned == code.replace("SECRET", "REMOVED_PASSWORD")
    assert [one.kind for one in removed] == ["password"]


@pytest.mark.parametrize(
    "code",
    [
        'tokenizer = AutoTokenizer.from_pretrained("one/model-2-7b-v1")\n',
        'password = os.getenv("DB_PASS")\n',
        'password = prompt("login")\n',
    ],
)
def test_names_stay_that_a_call_turns_into_a_secret(code):
    assert secrets.clean(code, languages.PYTHON) == (code, [])
