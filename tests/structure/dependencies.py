"""What is wrong with the manifests: crates without a place, and dependencies that a crate must not have."""

from collections.abc import Iterator

from crate import Dependency
from findings import Finding
from rules import Packages, Rules
from workspace import Workspace


def dependency_findings(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    yield from crates_without_place(workspace, rules)
    yield from upward_dependencies(workspace, rules)
    yield from unwanted_packages(workspace, rules)


def manifest_path(workspace: Workspace, crate: str) -> str:
    return workspace.crates[crate].manifest_path.relative_to(workspace.root).as_posix()


def crates_without_place(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for crate in workspace.crates:
        if rules.level(crate) is None:
            text = f"the crate {crate} has no place in `layers` of {rules.path.name}"
            yield Finding(manifest_path(workspace, crate), 1, "no place", text)


def is_upward(rules: Rules, crate: str, other: str) -> bool:
    """Whether a crate must not use another, which is above it or beside it."""
    own, others = rules.level(crate), rules.level(other)
    return crate != other and own is not None and others is not None and others <= own


def upward_dependencies(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for crate in workspace.crates.values():
        for one in crate.dependencies:
            other = workspace.by_package.get(one.package)
            if other and is_upward(rules, crate.name, other):
                text = f"{crate.name} depends on {other}, which is not below it"
                yield Finding(manifest_path(workspace, crate.name), one.line, f"depends on {other}", text)


def unwanted_packages(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for rule in rules.packages:
        crate = workspace.crates.get(rule.crate)
        for one in crate.dependencies if crate else []:
            if not one.for_tests and is_unwanted(rule, one):
                text = f"{rule.crate} depends on {one.package}: {rule.why}"
                yield Finding(manifest_path(workspace, rule.crate), one.line, f"depends on {one.package}", text)


def is_unwanted(rule: Packages, dependency: Dependency) -> bool:
    return dependency.package in rule.never or (rule.only is not None and dependency.package not in rule.only)
