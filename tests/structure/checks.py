"""What is wrong with the structure of a workspace."""

import re
from collections.abc import Iterable, Iterator

from circles import circles, graph, shortest_circle
from dependencies import dependency_findings, is_upward
from findings import Finding
from forms import form_findings
from rules import Rules, matched_room, matched_rooms
from workspace import File, Link, Module, Workspace


def all_findings(workspace: Workspace, rules: Rules) -> list[Finding]:
    """All faults, without regard to those that are known."""
    found = [
        *dependency_findings(workspace, rules),
        *form_findings(workspace, rules),
        *upward_imports(workspace, rules),
        *unwanted_imports(workspace, rules),
        *unwanted_paths(workspace, rules),
        *imports_between_handlers(workspace, rules),
        *circles_of_files(workspace, rules),
        *circles_of_rooms(workspace),
        *long_files(workspace, rules),
        *long_functions(workspace, rules),
        *vague_variants(workspace, rules),
    ]
    return sorted(set(found), key=lambda finding: (finding.path, finding.line, finding.text))


def name_of(module: Module) -> str:
    return "::".join(module)


def one_of_each(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first finding of each fault of a file."""
    seen = set()
    for finding in sorted(findings, key=lambda finding: finding.line):
        if (finding.path, finding.fault) not in seen:
            seen.add((finding.path, finding.fault))
            yield finding


def upward_imports(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    yield from one_of_each(
        Finding(
            link.source.path,
            link.line,
            f"knows {link.target.crate}",
            f"imports {what(link)}, but {link.source.crate} is not above {link.target.crate}",
        )
        for link in workspace.links
        if is_upward(rules, link.source.crate, link.target.crate)
    )


def what(link: Link) -> str:
    return f"{link.item} of {link.target.path}" if link.item else link.target.path


def unwanted_imports(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    """Imports between rooms that must not know each other, also through a third that passes names on."""
    folders = {module for module, file in workspace.files.items() if file.is_folders_own}
    for rule in rules.arrows:
        faults = []
        for link in workspace.links:
            own = matched_rooms(rule.sources, link.source.module, folders)
            if not own or link.source.path in rule.except_:
                continue
            for module in (link.target.module, link.named):
                if any(matched_room(pattern, module, folders) for pattern in rule.but):
                    continue
                for room in sorted(matched_rooms(rule.never, module, folders) - own):
                    text = f"imports {what(link)}, but {name_of(min(own))} must not know {name_of(room)}: {rule.why}"
                    faults.append(Finding(link.source.path, link.line, f"knows {name_of(room)}", text))
        yield from one_of_each(faults)


def unwanted_paths(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    """Paths into libraries, as `std::thread`, that a crate must not use."""
    for rule in rules.paths:
        for file in workspace.files.values():
            imports = [(one.path, one.offset) for one in file.source.imports]
            for path, offset in [*imports, *file.source.paths] if file.crate == rule.crate else []:
                for never in rule.never:
                    if "::".join(path).startswith(f"{never}::") or "::".join(path) == never:
                        text = f"uses {never}: {rule.why}"
                        yield Finding(file.path, file.source.line(offset), f"uses {never}", text)


def imports_between_handlers(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    """Imports of one file with HTTP handlers by another."""

    def has_handlers(file: File) -> bool:
        in_room = matched_room(rules.handlers.room, file.module, set())
        return in_room is not None and rules.handlers.mark in file.source.code

    yield from one_of_each(
        Finding(
            link.source.path,
            link.line,
            f"knows the handlers of {link.target.path}",
            f"imports {what(link)}: files with handlers must not know each other",
        )
        for link in workspace.links
        if has_handlers(link.source) and has_handlers(link.target)
    )


def is_in_one_folder(files: Iterable[File]) -> bool:
    """Whether files share a folder. A `mod.rs` belongs to its own folder and, as a module, to the one around it."""
    folders = [{file.folder, file.folder.rpartition("/")[0] if file.is_folders_own else file.folder} for file in files]
    return bool(set.intersection(*folders))


def circles_of_files(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    """Circles across folders; a module and the files of its own folder may know each other."""
    lines = {(link.source, link.target): link.line for link in reversed(workspace.links)}
    targets = graph(sorted(lines, key=lambda arrow: (arrow[0].path, arrow[1].path)))
    allowed = [set(circle.files) for circle in rules.allowed_circles]
    found = []
    for members in circles(targets):
        paths = {file.path for file in members}
        found.append(paths)
        if is_in_one_folder(members) or paths in allowed:
            continue
        first = min(paths)
        start = next(file for file in members if file.path == first)
        way = shortest_circle(targets, members, start)
        example = " -> ".join(file.path for file in [*way, start])
        fault = f"circle of {len(members)} files"
        yield Finding(first, lines[start, way[1 % len(way)]], fault, f"a {fault} across folders, such as {example}")
    for circle in rules.allowed_circles:
        if set(circle.files) not in found:
            text = f"`allowed_circles` has a circle that is not there: {', '.join(circle.files)}"
            yield Finding(rules.path.name, 1, "no circle", text)
        if not (workspace.root / circle.adr).is_file():
            yield Finding(rules.path.name, 1, "no ADR", f"`allowed_circles` names {circle.adr}, which is not there")


def circles_of_rooms(workspace: Workspace) -> Iterator[Finding]:
    """Circles of the modules right inside a crate."""
    lines: dict[tuple[Module, Module], Link] = {}
    for link in workspace.links:
        arrow = (link.source.module[:2], link.target.module[:2])
        if arrow[0] != arrow[1] and all(len(room) == 2 for room in arrow):
            lines.setdefault(arrow, link)
    targets = graph(sorted(lines))
    for members in circles(targets):
        start = min(members)
        way = shortest_circle(targets, members, start)
        link = lines[start, way[1 % len(way)]]
        names = ", ".join(name_of(room) for room in sorted(members))
        example = " -> ".join(name_of(room) for room in [*way, start])
        yield Finding(link.source.path, link.line, f"circle of rooms {names}", f"a circle of rooms: {example}")


def long_files(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for file in workspace.files.values():
        lines = file.source.production_lines
        if lines > rules.limits.file_lines:
            text = f"the file has {lines} lines without tests; {rules.limits.file_lines} are the limit"
            yield Finding(file.path, 1, "long file", text)


def long_functions(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for file in workspace.files.values():
        for function in file.source.functions():
            if function.lines > rules.limits.function_lines:
                text = f"{function.name} has {function.lines} lines; {rules.limits.function_lines} are the limit"
                yield Finding(file.path, function.first_line, f"long function {function.name}", text)


def vague_variants(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for file in workspace.files.values():
        for variant in rules.vague_variants:
            pattern = r"(?<![\w:])" + r"\s*".join(re.escape(part) for part in re.findall(r"\w+|\W", variant))
            for found in re.finditer(pattern, file.source.code):
                text = f"the error variant {variant} only carries text: say what went wrong with a type"
                yield Finding(file.path, file.source.line(found.start()), f"variant {variant}", text)
