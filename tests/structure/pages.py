"""Names in the pages about the code: what they speak of is there."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from findings import Finding
from rules import Rules
from workspace import Workspace

PAGES = ("docs/architecture.md", "docs/adding-a-model.md", "docs/adr/*.md")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?|[\w.-]+/|[\w.-]+\.(?:json|md|py|rs|svg|toml)")
NAME = re.compile(r"(?P<path>\w+(?:::\w+)*)(?:\(.*\))?")
TYPE = re.compile(r"(?=\w*[a-z])[A-Z]\w+")
FOLDERS = ("crates", "docs", "models", "tests")
SOURCES = ("crates/**/*.rs", "tests/e2e/**/*.rs", "tests/reference/**/*.py")


def unknown_names(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    """Rooms (`crate::room`), types, functions, keys and paths that are nowhere; and foreign names that no page has."""
    names = CodeNames(workspace, rules)
    said = set()
    for path in (path for pattern in PAGES for path in sorted(workspace.root.glob(pattern))):
        page = path.relative_to(workspace.root).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in CODE.findall(line):
                said.update(re.findall(r"\w+", name))
                if not names.has(name):
                    yield Finding(page, number, f"name {name}", f"the page names `{name}`, which is not in the code")
    for name in rules.foreign_names:
        if name not in said:
            yield Finding(rules.path.name, 1, f"foreign name {name}", f"no page names {name}: take it out")


class CodeNames:
    """What may be named."""

    def __init__(self, workspace: Workspace, rules: Rules) -> None:
        self.workspace = workspace
        self.foreign = set(rules.foreign_names)
        self.crates = {name for line in rules.layers for name in line}
        self.rooms = {"::".join(module) for module in workspace.files}

    def has(self, name: str) -> bool:
        """Whether it is there; commands, headers and other text that is no name count as such."""
        if PATH.fullmatch(name):
            return name.rstrip("/") in self.paths
        found = NAME.fullmatch(name)
        if found is None or name in self.crates:
            return True
        parts = found.group("path").split("::")
        if parts[0] in self.workspace.crates and len(parts) > 1:
            return name in self.rooms
        return all(part in (self.code if TYPE.fullmatch(part) else self.words) | self.foreign for part in parts)

    @cached_property
    def paths(self) -> set[str]:
        """Files and folders, by the whole path or its end."""
        root = self.workspace.root
        files = [path for folder in FOLDERS for path in root.glob(f"{folder}/**/*")]
        return {end for path in files for end in ends(path.relative_to(root))}

    @cached_property
    def code(self) -> set[str]:
        """Words of production code without comments and literals."""
        return words(file.source.code for file in self.workspace.files.values())

    @cached_property
    def words(self) -> set[str]:
        """All words of the sources: keys stand in literals, and what is of the reference in tests."""
        root = self.workspace.root
        return words(path.read_text() for pattern in SOURCES for path in root.glob(pattern)) | self.crates


def ends(path: Path) -> Iterator[str]:
    return ("/".join(path.parts[at:]) for at in range(len(path.parts)))


def words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text)}
