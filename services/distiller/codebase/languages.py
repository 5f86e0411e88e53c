"""The languages that are read: by which names of files, with which grammar and which queries.

A query finds, in the terms of its grammar: `@class`, `@function` and `@method` with `@name` and
`@body` within them, `@scope` with `@name` for blocks that only qualify what stands in them (Rust's
`impl`), `@receiver` for the type that a Go method belongs to, `@case` for a test that is a call,
`@call` with its `@callee`, and `@import`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib

import tree_sitter


@dataclasses.dataclass(frozen=True)
class Language:
    """One language."""

    name: str
    """In lower case."""
    suffixes: tuple[str, ...]
    module: str = ""
    """Package with its grammar; empty for Python, which `ast` reads."""
    function: str = "language"
    """Of the package, that gives the grammar."""
    query: str = ""
    wrappers: frozenset[str] = frozenset()
    """Nodes around a definition that belong to it, such as `export`."""


_JAVASCRIPT = """
(function_declaration name: (_) @name body: (_) @body) @function
(generator_function_declaration name: (_) @name body: (_) @body) @function
(lexical_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function body: (_) @body) (function_expression body: (_) @body)])) @function
(class_declaration name: (_) @name body: (_) @body) @class
(method_definition name: (_) @name body: (_) @body) @method
(call_expression function: [(identifier) @callee (member_expression property: (_) @callee)]) @call
(new_expression constructor: (identifier) @callee) @call
((call_expression function: (identifier) @name) @case (#any-of? @name "it" "test"))
(import_statement) @import
"""
_TYPESCRIPT = _JAVASCRIPT + "(abstract_class_declaration name: (_) @name body: (_) @body) @class\n"
_GO = """
(function_declaration name: (_) @name body: (_) @body) @function
(method_declaration receiver: (parameter_list (parameter_declaration type: (_) @receiver))
  name: (_) @name body: (_) @body) @method
(type_declaration (type_spec name: (_) @name type: [(struct_type) (interface_type)] @body)) @class
(call_expression function: [(identifier) @callee (selector_expression field: (_) @callee)]) @call
(import_spec) @import
"""
_RUST = """
(function_item name: (_) @name body: (_) @body) @function
(struct_item name: (_) @name body: (_) @body) @class
(enum_item name: (_) @name body: (_) @body) @class
(trait_item name: (_) @name body: (_) @body) @class
(impl_item type: [(type_identifier) @name (generic_type type: (_) @name)]) @scope
(call_expression function: [(identifier) @callee (field_expression field: (_) @callee)
  (scoped_identifier name: (_) @callee)]) @call
(use_declaration) @import
"""
_JAVA = """
(class_declaration name: (_) @name body: (_) @body) @class
(interface_declaration name: (_) @name body: (_) @body) @class
(enum_declaration name: (_) @name body: (_) @body) @class
(record_declaration name: (_) @name body: (_) @body) @class
(method_declaration name: (_) @name body: (_) @body) @method
(constructor_declaration name: (_) @name body: (_) @body) @method
(method_invocation name: (_) @callee) @call
(object_creation_expression type: (type_identifier) @callee) @call
(import_declaration) @import
"""
_C = """
(function_definition declarator: (function_declarator declarator: (_) @name)
  body: (_) @body) @function
(function_definition declarator: (pointer_declarator declarator: (function_declarator
  declarator: (_) @name)) body: (_) @body) @function
(struct_specifier name: (_) @name body: (_) @body) @class
(call_expression function: [(identifier) @callee (field_expression field: (_) @callee)]) @call
(preproc_include) @import
"""
_CPP = (
    _C
    + """
(function_definition declarator: (reference_declarator (function_declarator
  declarator: (_) @name)) body: (_) @body) @function
(class_specifier name: (_) @name body: (_) @body) @class
(call_expression function: (qualified_identifier name: (_) @callee)) @call
(new_expression type: (type_identifier) @callee) @call
"""
)

PYTHON = Language("python", (".py", ".pyi", ".pyw"))
CPP = Language(
    "c++", (".cc", ".cpp", ".cxx", ".hpp", ".hh", ".hxx"), "tree_sitter_cpp", query=_CPP,
    wrappers=frozenset({"template_declaration"}),
)  # fmt: skip
_EXPORT = frozenset({"export_statement"})
ALL = (
    PYTHON,
    Language(
        "javascript", (".js", ".mjs", ".cjs", ".jsx"), "tree_sitter_javascript",
        query=_JAVASCRIPT, wrappers=_EXPORT,
    ),
    Language(
        "typescript", (".ts", ".mts", ".cts"), "tree_sitter_typescript", "language_typescript",
        query=_TYPESCRIPT, wrappers=_EXPORT,
    ),
    Language(
        "typescript", (".tsx",), "tree_sitter_typescript", "language_tsx",
        query=_TYPESCRIPT, wrappers=_EXPORT,
    ),
    Language("go", (".go",), "tree_sitter_go", query=_GO),
    Language("rust", (".rs",), "tree_sitter_rust", query=_RUST),
    Language("java", (".java",), "tree_sitter_java", query=_JAVA),
    Language("c", (".c", ".h"), "tree_sitter_c", query=_C),
    CPP,
)  # fmt: skip
_BY_SUFFIX = {suffix: language for language in ALL for suffix in language.suffixes}


def of_path(path: str) -> Language | None:
    """The language of a file by its name; None where it is none of these."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return _BY_SUFFIX.get(name[dot:].lower()) if dot > 0 else None


@functools.cache
def grammar(language: Language) -> tree_sitter.Language:
    """The grammar of a language other than Python."""
    module = importlib.import_module(language.module)
    return tree_sitter.Language(getattr(module, language.function)())


@functools.cache
def query(language: Language) -> tree_sitter.Query:
    """The compiled query of a language other than Python."""
    return tree_sitter.Query(grammar(language), language.query)
