"""A crate: what its manifest says."""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

KINDS = ("dependencies", "dev-dependencies", "build-dependencies")


@dataclass(frozen=True)
class Dependency:
    """An entry of a manifest."""

    name: str
    """What it is called in the crate."""
    package: str
    """What it is called where it comes from."""
    for_tests: bool
    line: int


@dataclass(frozen=True)
class Crate:
    """A folder of `crates`."""

    name: str
    manifest_path: Path
    packages: dict[str, dict | str]
    """What the workspace's manifest says of dependencies."""

    @cached_property
    def manifest(self) -> dict:
        return tomllib.loads(self.manifest_path.read_text())

    @property
    def package(self) -> str:
        return self.manifest["package"]["name"]

    @property
    def library(self) -> str:
        """What others write in front of `::`."""
        return self.manifest.get("lib", {}).get("name", self.package.replace("-", "_"))

    @cached_property
    def targets(self) -> list[Path]:
        """Where production code begins, the library or main program first; examples, tests and benches are none."""
        named = [self.manifest.get("lib", {}), *self.manifest.get("bin", [])]
        paths = ["src/lib.rs", "src/main.rs", *(target["path"] for target in named if "path" in target)]
        paths.append(self.manifest["package"].get("build") or "build.rs")
        folder = self.manifest_path.parent
        programs = sorted([*folder.glob("src/bin/*.rs"), *folder.glob("src/bin/*/main.rs")])
        return [path for path in dict.fromkeys([*(folder / path for path in paths), *programs]) if path.exists()]

    @cached_property
    def dependencies(self) -> list[Dependency]:
        tables = [self.manifest, *self.manifest.get("target", {}).values()]
        return [
            Dependency(name, self.package_of(name, entry), kind == "dev-dependencies", self.line_of(name))
            for table in tables
            for kind in KINDS
            for name, entry in table.get(kind, {}).items()
        ]

    def package_of(self, name: str, entry: dict | str) -> str:
        if isinstance(entry, dict) and entry.get("workspace"):
            entry = self.packages.get(name, {})
        return entry.get("package", name) if isinstance(entry, dict) else name

    def line_of(self, name: str) -> int:
        """The first line that has the dependency."""
        entry = re.compile(rf'(?:\[.*dependencies\.)?"?{re.escape(name)}"?\s*[].=]')
        lines = self.manifest_path.read_text().splitlines()
        return next((at for at, line in enumerate(lines, 1) if entry.match(line)), 1)
