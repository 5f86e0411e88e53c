"""Licences are told from texts and headers, and expressions hold as SPDX says."""

from __future__ import annotations

import pathlib

import pytest

from services.distiller.codebase import licences
from tests.unit.distiller.codebase import made

_MIT = "MIT\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of it"
_GPL = "GNU GENERAL PUBLIC LICENSE\n Version 3\n ... the GNU Affero General Public License"
_CODE = "def f(a):\n    b = a + 1\n    return b * 2\n"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (_MIT, "MIT"),
        (_GPL, "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999", "LGPL-2.1-only"),
        ("Mozilla Public License Version 2.0\n====", "MPL-2.0"),
        ("Apache License\n Version 2.0, January 2004 with the Commons Clause", licences.UNKNOWN),
        (
            "Redistribution and use in source and binary forms, ... Neither the name of",
            "BSD-3-Clause",
        ),
        ("Redistribution and use in source\n and binary forms, with or without", "BSD-2-Clause"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("All rights reserved. You may not copy this.", licences.UNKNOWN),
        ("SPDX-License-Identifier: ISC\n", "ISC"),
    ],
)
def test_licence_is_told_from_its_text(text, licence):
    assert licences.of_text(text) == licence


def test_licence_of_this_repository_is_told():
    text = (pathlib.Path(__file__).parents[4] / "LICENSE").read_text()
    assert licences.of_text(text) == "Apache-2.0"


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(GPL-2.0-only OR Apache-2.0) AND MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("", False),
        ("(" * 5_000, False),
    ],
)
def test_expression_is_allowed_when_allowed_licences_meet_it(expression, allowed):
    assert licences.is_allowed(expression, ("MIT", "Apache-2.0")) is allowed


def test_header_comes_before_the_nearest_licence_file(tmp_path):
    found = made.extract(
        tmp_path,
        {
            "LICENSE": _MIT,
            "a.py": _CODE,
            "b.py": "# SPDX-License-Identifier: GPL-3.0-or-later\n" + _CODE,
            "part/COPYING": _GPL,
            "part/deep/c.py": _CODE,
        },
    )
    assert found.licence == "MIT"
    assert [(chunk.path, chunk.licence) for chunk in found.chunks] == [("a.py", "MIT")]
    told = made.reasons(found)
    assert told["b.py"] == "licence GPL-3.0-or-later"
    assert told["part/deep/c.py"] == "licence GPL-3.0-only"


@pytest.mark.parametrize("unlicensed", [True, False])
def test_unlicensed_files_are_learned_only_when_the_settings_say_so(tmp_path, unlicensed):
    found = made.extract(tmp_path, {"a.py": _CODE}, unlicensed=unlicensed)
    assert len(found.chunks) == unlicensed
    assert made.reasons(found) == ({} if unlicensed else {"a.py": "no licence"})


@pytest.mark.parametrize(
    ("declared", "licence"),
    [
        ('license = "BSD-3-Clause"', "BSD-3-Clause"),
        ('license = {text = "MIT"}', "MIT"),
        ('classifiers = ["License :: OSI Approved :: MIT License"]', "MIT"),
        ("license = 3", ""),
        ("license = [", ""),
    ],
)
def test_licence_is_read_of_pyproject_when_there_is_no_licence_file(tmp_path, declared, licence):
    files = {"pyproject.toml": f"[project]\n{declared}\n", "a.py": _CODE}
    assert made.extract(tmp_path, files).licence == licence


def test_choice_of_two_licence_files_is_a_choice():
    assert licences.of_files({"LICENSE-MIT": _MIT, "LICENSE-GPL": _GPL}) == "GPL-3.0-only OR MIT"
    assert licences.of_files({"LICENSE": _MIT, "COPYING": _GPL}) == "GPL-3.0-only AND MIT"


def test_free_words_are_no_licence_and_go_no_further():
    told = 'license = "Proprietary, ask ann.miller@millers-mill.org"'
    assert licences.of_pyproject(f"[project]\n{told}\n") == licences.UNKNOWN
    assert (
        licences.of_pyproject('[project]\nlicense = "MIT OR Apache-2.0"\n') == "MIT OR Apache-2.0"
    )
    words = "MIT and so on " * 200
    assert licences.of_header(f"# SPDX-License-Identifier: {words}\n") == licences.UNKNOWN
