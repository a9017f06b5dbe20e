"""What a Rust file says about structure: its modules, imports, functions and tests.

It reads as much of the language as this repository uses, without a compiler: comments and literals are blanked out,
then brackets are counted. Macros are not expanded; paths inside their arguments are read like any others. It guards
against accidents: not measured are closures in statics, and not followed are names that a macro puts together.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from blanks import blanked

USE = re.compile(r"(?P<visibility>\bpub(?:\s*\([^)]*\))?\s+)?\buse\s+(?P<tree>[^;]+);")
MODULE = re.compile(r"\bmod\s+(?P<name>\w+)\s*(?P<opens>[;{])")
FUNCTION = re.compile(r"(?:\bfn|\bmacro_rules!)\s+(?P<name>\w+)")
ITEM = re.compile(
    r"\b(?:struct|enum|union|trait|type|static(?:\s+mut)?|(?:async\s+|unsafe\s+|const\s+)*fn|const|macro_rules!)"
    r"\s+(?P<name>\w+)"
)
PATH = re.compile(r"(?:(?<![\w:'])|(?<![\w:'>)\]])::\s*)(?:\$(?=crate\b))?(?P<path>\w+(?:\s*::\s*\w+)+)")
TEST_ATTRIBUTE = re.compile(r"#(?P<inner>!?)\[cfg\((?:test\)|all\(test\b)")
BRACKET = re.compile(r"[][(){}]")
ATTRIBUTE = re.compile(r"\s*#\s*(?=\[)")
VISIBILITY = r"\s*(?:pub(?:\s*\([^)]*\))?\s+)?"
KEYWORD = re.compile(
    VISIBILITY + r"(?:use|mod|async|unsafe|extern|const|static|fn|struct|enum|union|trait|type|impl|macro_rules|let)\b"
)
VISIBLE_IN = re.compile(r"\bpub\s*\(\s*in\b[^)]*\)")
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Import:
    """One name that a `use` brings in."""

    path: tuple[str, ...]
    """As written, without a final `*` or `self`."""
    name: str
    """What it is called here; `*` for everything."""
    offset: int
    scope: tuple[str, ...]
    """The inline modules around it."""

    @property
    def path_with_star(self) -> tuple[str, ...]:
        return (*self.path, "*") if self.name == "*" else self.path


@dataclass(frozen=True)
class Function:
    name: str
    first_line: int
    lines: int


class RustSource:
    """A file's code."""

    def __init__(self, text: str) -> None:
        self.line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self.line_count = len(text.splitlines())
        self.code = VISIBLE_IN.sub(lambda found: " " * len(found.group()), blanked(text))

    def line(self, offset: int) -> int:
        return bisect_right(self.line_starts, offset)

    def end_of_block(self, opening: int) -> int:
        """Behind the bracket that closes the one at `opening`."""
        depth = 0
        for found in BRACKET.finditer(self.code, opening):
            depth += 1 if found.group() in OPENING else -1
            if depth == 0:
                return found.end()
        return len(self.code)

    def block_around(self, offset: int) -> tuple[int, int]:
        """The innermost brackets around an offset, or the file."""
        openings: list[int] = []
        for found in BRACKET.finditer(self.code, 0, offset):
            if found.group() in OPENING:
                openings.append(found.start())
            elif openings:
                openings.pop()
        return (openings[-1], self.end_of_block(openings[-1])) if openings else (0, len(self.code))

    def end_of_item(self, start: int) -> int:
        """Behind the item, field or variant that begins at `start`, attributes included."""
        offset = start
        while attribute := ATTRIBUTE.match(self.code, offset):
            offset = self.end_of_block(attribute.end())
        is_import = re.compile(VISIBILITY + r"use\b").match(self.code, offset)
        ends = ";" if KEYWORD.match(self.code, offset) else ";,"
        while offset < len(self.code):
            character = self.code[offset]
            if character in OPENING:
                offset = self.end_of_block(offset)
                if character == "{" and not is_import:
                    return offset
            elif character in CLOSING:
                return offset
            elif character in ends:
                return offset + 1
            else:
                offset += 1
        return offset

    @cached_property
    def test_spans(self) -> list[tuple[int, int]]:
        """What is compiled for tests only."""
        spans = []
        for found in TEST_ATTRIBUTE.finditer(self.code):
            is_inner, start = found.group("inner") == "!", found.start()
            spans.append(self.block_around(start) if is_inner else (start, self.end_of_item(start)))
        return spans

    def is_test(self, offset: int) -> bool:
        return any(start <= offset < end for start, end in self.test_spans)

    @cached_property
    def production_lines(self) -> int:
        """Lines that are not part of a test."""
        in_tests = {line for start, end in self.test_spans for line in range(self.line(start), self.line(end - 1) + 1)}
        return self.line_count - len(in_tests)

    @cached_property
    def inline_modules(self) -> list[tuple[str, int, int]]:
        """Name and span of the modules that are written out in this file, outer ones first."""
        return [
            (found.group("name"), found.end(), self.end_of_block(found.end() - 1))
            for found in MODULE.finditer(self.code)
            if found.group("opens") == "{"
        ]

    def scope(self, offset: int) -> tuple[str, ...]:
        return tuple(name for name, start, end in self.inline_modules if start <= offset < end)

    @cached_property
    def declared_modules(self) -> list[tuple[tuple[str, ...], str, int]]:
        """Production modules with files of their own: the inline modules around it, its name, where it is declared."""
        return [
            (self.scope(found.start()), found.group("name"), found.start())
            for found in MODULE.finditer(self.code)
            if found.group("opens") == ";" and not self.is_test(found.start())
        ]

    @cached_property
    def imports(self) -> list[Import]:
        """What production code imports."""
        imports = []
        for found in USE.finditer(self.code):
            if not self.is_test(found.start()):
                scope = self.scope(found.start())
                for path, name, offset in leaves(found.group("tree")):
                    imports.append(Import(path, name, found.start("tree") + offset, scope))
        return imports

    @cached_property
    def paths(self) -> list[tuple[tuple[str, ...], int]]:
        """Paths with `::` in production code outside of imports."""
        without_imports = USE.sub(lambda found: " " * len(found.group()), self.code)
        return [
            (tuple(re.split(r"\s*::\s*", found.group("path"))), found.start("path"))
            for found in PATH.finditer(without_imports)
            if not self.is_test(found.start())
        ]

    def items(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What is defined: the inline modules around it, and its name. What is inside of blocks may be among it."""
        for found in ITEM.finditer(self.code):
            yield self.scope(found.start()), found.group("name")

    def functions(self) -> Iterator[Function]:
        """Functions and macros of production code that have a body."""
        for found in FUNCTION.finditer(self.code):
            end = self.end_of_item(found.start())
            has_body = self.code[end - 1 : end] == "}"
            if has_body and not self.is_test(found.start()):
                first, last = self.line(found.start()), self.line(end - 1)
                yield Function(found.group("name"), first, last - first + 1)


def leaves(tree: str) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Path, name and offset of each name in the tree of a `use`."""
    tokens = [(found.group(), found.start()) for found in re.finditer(r"\w+|::|[{},*]", tree)]
    yield from branch(tokens, ())


def branch(tokens: list[tuple[str, int]], prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """The leaves up to the end of this group; takes its tokens off the list."""
    path, name, offset = prefix, "", 0
    while tokens:
        token, position = tokens.pop(0)
        if token == "{":
            yield from branch(tokens, path)
            name = ""
        elif token in (",", "}"):
            if name:
                yield path, name, offset
            if token == "}":
                return
            path, name = prefix, ""
        elif token == "as":
            name = tokens.pop(0)[0]
        elif token == "*":
            name, offset = "*", position
        elif token == "self" and path:
            name, offset = path[-1], position
        elif token != "::":
            path, name, offset = (*path, token), token, position
    if name:
        yield path, name, offset
