"""The rules of rules.toml."""

import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from workspace import Module

DEFAULT_PATH = Path(__file__).with_name("rules.toml")


@dataclass(frozen=True)
class Limits:
    file_lines: int
    function_lines: int


@dataclass(frozen=True)
class Packages:
    """Packages that a crate must not depend on, or the only ones that it may."""

    crate: str
    why: str
    never: list[str] = field(default_factory=list)
    only: list[str] | None = None


@dataclass(frozen=True)
class Paths:
    """Paths into libraries that a crate must not use."""

    crate: str
    never: list[str]
    why: str


@dataclass(frozen=True)
class Arrow:
    """Rooms that must not know others."""

    never: list[str]
    why: str
    # `from` is a keyword of Python's.
    sources: list[str]
    but: list[str] = field(default_factory=list)
    """Rooms that may be known all the same."""
    except_: list[str] = field(default_factory=list)
    """Files that may know them."""


@dataclass(frozen=True)
class Handlers:
    room: str
    mark: str


@dataclass(frozen=True)
class AllowedCircle:
    files: list[str]
    adr: str


@dataclass(frozen=True)
class Known:
    """A fault that is there and shall go."""

    file: str
    fault: str
    mend: str


@dataclass(frozen=True)
class Rules:
    path: Path
    layers: list[list[str]]
    limits: Limits
    vague_variants: list[str]
    packages: list[Packages]
    paths: list[Paths]
    arrows: list[Arrow]
    handlers: Handlers
    foreign_names: list[str]
    """Names in the pages that are none of this code's."""
    allowed_circles: list[AllowedCircle]
    known: list[Known]

    @classmethod
    def read(cls, path: Path = DEFAULT_PATH) -> "Rules":
        table = tomllib.loads(path.read_text())
        arrows = [
            Arrow(**{{"from": "sources", "except": "except_"}.get(key, key): value for key, value in arrow.items()})
            for arrow in table["arrows"]
        ]
        return cls(
            path=path,
            layers=table["layers"],
            limits=Limits(**table["limits"]),
            vague_variants=table["vague_variants"],
            packages=[Packages(**entry) for entry in table["packages"]],
            paths=[Paths(**entry) for entry in table["paths"]],
            arrows=arrows,
            handlers=Handlers(**table["handlers"]),
            foreign_names=table["pages"]["foreign_names"],
            allowed_circles=[AllowedCircle(**entry) for entry in table.get("allowed_circles", [])],
            known=[Known(**entry) for entry in table.get("known", [])],
        )

    def level(self, crate: str) -> int | None:
        """How far up a crate is; 0 is the top."""
        return next((level for level, crates in enumerate(self.layers) if crate in crates), None)


def matched_room(pattern: str, module: Module, folders: set[Module]) -> Module | None:
    """The module that a pattern means, if it is this one or one around it."""
    names = pattern.removesuffix("/").split("::")
    room = module[: len(names)]
    is_one = len(room) == len(names) and all(map(fnmatchcase, room, names))
    return room if is_one and (room in folders or not pattern.endswith("/")) else None


def matched_rooms(patterns: list[str], module: Module, folders: set[Module]) -> set[Module]:
    return {room for pattern in patterns if (room := matched_room(pattern, module, folders))}
