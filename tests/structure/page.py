"""Names in the page about the architecture: the rooms and types that it speaks of are those of the code."""

import re
from collections.abc import Iterator

from findings import Finding
from workspace import Workspace

PAGE_PATH = "docs/architecture.md"
CODE = re.compile(r"`([^`\n]+)`")
ROOM = re.compile(r"\w+(?:::\w+)+")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?")
TYPE = re.compile(r"(?=\w*[a-z])[A-Z]\w+")


def unknown_names(workspace: Workspace, page: str) -> Iterator[Finding]:
    """Rooms (`crate::room`), types (`TypeName`) and paths (`folder/file`) that are nowhere."""
    types = {item for items in workspace.items.values() for item in items}
    rooms = {"::".join(module) for module in workspace.files}
    for number, line in enumerate(page.splitlines(), 1):
        for name in CODE.findall(line):
            is_gone = (
                (ROOM.fullmatch(name) and name not in rooms)
                or (TYPE.fullmatch(name) and name not in types)
                or (PATH.fullmatch(name) and not (workspace.root / name).exists())
            )
            if is_gone:
                yield Finding(PAGE_PATH, number, f"name {name}", f"the page names `{name}`, which is not in the code")
