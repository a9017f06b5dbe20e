"""The documents that people read: their headings, links and blocks of code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conftest import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

# Folders that are not the project's own, or not for readers.
SKIPPED = {".git", "target", "out", ".venv", "node_modules", "fixtures"}
HTML_LINK = re.compile(r'\b(?:href|src|srcset)="([^"]*)"')


@dataclass(frozen=True)
class Block:
    """Code in a document."""

    language: str
    """What stands after the fence; empty for an indented block."""
    text: str
    line: int


@dataclass(frozen=True)
class Document:
    """A Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def blocks(self) -> list[Block]:
        code = [token for token in self.tokens if token.type in ("fence", "code_block")]
        return [Block(token.info.strip(), token.content, token.map[0] + 1) for token in code]

    @property
    def links(self) -> Iterator[str]:
        for token in all_of(self.tokens):
            if token.type in ("link_open", "image"):
                yield str(token.attrs.get("href") or token.attrs.get("src"))
            elif token.type in ("html_inline", "html_block"):
                yield from HTML_LINK.findall(token.content)

    @property
    def mentioned_paths(self) -> Iterator[str]:
        """Files and folders of this repository that are named as code."""
        for token in all_of(self.tokens):
            if token.type == "code_inline" and re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", token.content):
                yield token.content

    @cached_property
    def anchors(self) -> set[str]:
        """What a link can name after `#`, as GitHub makes it from the headings."""
        anchors: set[str] = set()
        for opened, text in zip(self.tokens, self.tokens[1:], strict=False):
            if opened.type == "heading_open":
                plain = "".join(part.content for part in text.children or [])
                slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
                copies = (f"{slug}-{count}" for count in range(1, 100))
                anchors.add(slug if slug not in anchors else next(copy for copy in copies if copy not in anchors))
        return anchors


def all_of(tokens: list[Token]) -> Iterator[Token]:
    """The tokens and what is inside them."""
    for token in tokens:
        yield token
        yield from all_of(token.children or [])


def all_documents() -> list[Document]:
    paths = sorted(ROOT.rglob("*.md"))
    return [Document(path) for path in paths if SKIPPED.isdisjoint(path.relative_to(ROOT).parts)]
