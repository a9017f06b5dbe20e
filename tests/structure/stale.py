"""Rules that say nothing, since what they name is not there. `layers` may name crates to come."""

from collections.abc import Iterable, Iterator

from findings import Finding
from rules import Rules, matched_room
from workspace import Workspace


def stale_rules(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for name in missing(workspace, rules):
        text = f"a rule names {name}, which is not there"
        yield Finding(rules.path.name, 1, f"stale {name}", text)


def missing(workspace: Workspace, rules: Rules) -> Iterator[str]:
    folders = {module for module, file in workspace.files.items() if file.is_folders_own}
    modules = {*workspace.files, *((*module, name) for module, names in workspace.children.items() for name in names)}
    rooms = [pattern for arrow in rules.arrows for pattern in (*arrow.sources, *arrow.never, *arrow.but)]
    for room in dict.fromkeys([*rooms, rules.handlers.room]):
        if not any(matched_room(room, module, folders) for module in modules):
            yield room
    files = {file.path for file in workspace.files.values()}
    yield from (path for arrow in rules.arrows for path in arrow.except_ if path not in files)
    if not any(rules.handlers.mark in file.source.code for file in workspace.files.values()):
        yield rules.handlers.mark
    packages = [name for rule in rules.packages for name in (*rule.never, *(rule.only or []))]
    yield from without(packages, workspace.packages)
    yield from without((rule.crate for rule in (*rules.packages, *rules.paths)), workspace.crates)


def without(names: Iterable[str], there: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name not in there]
