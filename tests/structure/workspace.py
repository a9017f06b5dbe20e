"""The workspace's crates and files, and which file imports which.

An import leads to the file that defines what is imported: names that a `mod.rs` or `lib.rs` passes on are followed to
where they come from. Test code is left out: what a test needs to know says nothing about the rooms.
"""

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crate import Crate
from rust_source import Import, RustSource

Module = tuple[str, ...]
"""The crate's folder and the names of the modules, outermost first."""
LONGEST_CHAIN = 20
"""Of names that are passed on; more is a circle of imports, which the compiler refuses."""


@dataclass(frozen=True)
class File:
    """A source file of production code."""

    path: str
    """From the repository's root."""
    module: Module
    source: RustSource

    @property
    def crate(self) -> str:
        return self.module[0]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def is_folders_own(self) -> bool:
        """Whether it is the module of its whole folder."""
        return self.path.endswith("/mod.rs")


@dataclass(frozen=True)
class Link:
    """That a file imports something of another file of the workspace."""

    source: File
    target: File
    line: int
    named: Module
    """The innermost module that the import names, which may only pass the item on."""
    item: str | None
    """What is imported; nothing if it is a whole module."""


class Workspace:
    """All crates of a repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.crates: dict[str, Crate] = {}
        self.files: dict[Module, File] = {}
        self.children: dict[Module, set[str]] = {}
        self.imports: dict[Module, list[Import]] = {}
        self.items: dict[Module, set[str]] = {}
        self.lost: list[tuple[File, str, int]] = []
        """Modules that are not where a file that declares them says, and the line."""
        manifest = root / "Cargo.toml"
        table = tomllib.loads(manifest.read_text()) if manifest.exists() else {}
        self.packages: dict[str, dict | str] = table.get("workspace", {}).get("dependencies", {})
        for manifest in sorted(root.glob("crates/*/Cargo.toml")):
            crate = Crate(manifest.parent.name, manifest, self.packages)
            self.crates[crate.name] = crate
            for at, path in enumerate(crate.targets):
                # The first one is the crate; others are crates of their own, beside its modules.
                name = path.relative_to(manifest.parent).as_posix()
                self.read(path, (crate.name,) if at == 0 else (crate.name, name), path.parent)
        self.libraries = {crate.library: crate.name for crate in self.crates.values()}
        self.by_package = {crate.package: crate.name for crate in self.crates.values()}

    def read(self, path: Path, module: Module, folder: Path) -> None:
        """Reads a file and those of the modules that it declares."""
        source = RustSource(path.read_text())
        self.files[module] = File(path.relative_to(self.root).as_posix(), module, source)
        for name, _, _ in source.inline_modules:
            self.children.setdefault(module, set()).add(name)
        for scope, item in source.items():
            self.items.setdefault(module + scope, set()).add(item)
        for one in source.imports:
            self.imports.setdefault(module + one.scope, []).append(one)
        for scope, name, offset in source.declared_modules:
            inner = folder.joinpath(*scope, name)
            candidate = next((one for one in (inner.with_suffix(".rs"), inner / "mod.rs") if one.exists()), None)
            if candidate is None:
                self.lost.append((self.files[module], name, source.line(offset)))
                continue
            self.children.setdefault(module + scope, set()).add(name)
            self.read(candidate, (*module, *scope, name), inner)

    def file_of(self, module: Module) -> File:
        """The file that a module, perhaps an inline one, is written in."""
        while module not in self.files:
            module = module[:-1]
        return self.files[module]

    @cached_property
    def links(self) -> list[Link]:
        """Imports and paths that lead from file to file."""
        links = []
        for file in self.files.values():
            source = file.source
            paths = [(one.path_with_star, one.offset) for one in source.imports if not self.is_module_in_use(file, one)]
            paths += source.paths
            for path, offset in paths:
                scope = file.module + source.scope(offset)
                found = self.resolved(scope, path)
                if found and (target := self.file_of(found.module)) != file:
                    links.append(Link(file, target, source.line(offset), found.named, found.item))
        return links

    def is_module_in_use(self, file: File, one: Import) -> bool:
        """Whether an import is of a module in whose name paths begin: they say what is needed of it."""
        place = self.resolved(file.module + one.scope, one.path)
        is_module = place is not None and place.item is None and one.name != "*"
        return is_module and any(path[0] == one.name for path, _ in file.source.paths)

    def resolved(self, scope: Module, path: tuple[str, ...], depth: int = 0) -> "Place | None":
        """Where a path of a module leads; nothing if that is outside of the workspace."""
        if depth > LONGEST_CHAIN or not path:
            return None
        first, rest = path[0], path[1:]
        if first == "crate":
            start = scope[:2] if is_other_target(scope) else scope[:1]
        elif first == "self":
            start = scope
        elif first == "super":
            start = scope[:-1]
            while rest[:1] == ("super",):
                start, rest = start[:-1], rest[1:]
        elif first in self.children.get(scope, ()) or self.bindings(scope, first):
            start, rest = scope, path
        elif library := self.library(scope[0], first):
            start = (library,)
        else:
            return None
        return self.walk(start, rest, start, depth)

    def library(self, crate: str, name: str) -> str | None:
        """The crate that a name stands for in another, which may have renamed it in its manifest."""
        renamed = {one.name.replace("-", "_"): one.package for one in self.crates[crate].dependencies}
        return self.by_package.get(renamed.get(name, "")) or self.libraries.get(name)

    def bindings(self, module: Module, name: str) -> list[Import]:
        return [one for one in self.imports.get(module, []) if one.name == name]

    def walk(self, module: Module, path: tuple[str, ...], named: Module, depth: int) -> "Place | None":
        """Goes from a module down a path."""
        if not path or path[0] == "*":
            return Place(module, None, named)
        name, rest = path[0], path[1:]
        bindings = self.bindings(module, name)
        if name in self.children.get(module, ()) and (rest or not bindings):
            inner = (*module, name)
            return self.walk(inner, rest, inner, depth)
        if name in self.items.get(module, ()):
            return Place(module, name, named)
        for one in bindings:
            place = self.resolved(module, one.path, depth + 1)
            if place is None:
                return None
            if place.item is None:
                return self.walk(place.module, rest, place.module, depth)
            return Place(place.module, place.item, named)
        for one in self.imports.get(module, []):
            if one.name == "*" and (place := self.resolved(module, one.path, depth + 1)) and place.item is None:
                found = self.walk(place.module, path, named, depth + 1)
                if found and found.item in self.items.get(found.module, ()):
                    return Place(found.module, found.item, named)
        return Place(module, name, named)


def is_other_target(module: Module) -> bool:
    """Whether it belongs to a binary or build script beside the crate, whose name is that of its file."""
    return len(module) > 1 and module[1].endswith(".rs")


@dataclass(frozen=True)
class Place:
    """Where a path leads."""

    module: Module
    item: str | None
    named: Module
