"""Forms of the language that would keep code from being read here, and that nothing needs."""

import re
from collections.abc import Iterator

from findings import Finding
from rules import Rules
from workspace import File, Workspace

FORMS = {
    "#[path]": re.compile(r"#\s*\[\s*(?:cfg_attr\s*\([^]]*,\s*)?path\s*="),
    "include!": re.compile(r"\binclude\s*!"),
    "extern crate": re.compile(r"\bextern\s+crate\b"),
}
"""A file is found by its module's name, and a crate by its name in the manifest."""


def form_findings(workspace: Workspace, rules: Rules) -> Iterator[Finding]:
    for file, name, line in workspace.lost:
        yield Finding(file.path, line, f"lost module {name}", f"the module {name} has no file where it belongs")
    for file in workspace.files.values():
        yield from hidden_code(file)
        yield from renamed_marks(file, rules)


def hidden_code(file: File) -> Iterator[Finding]:
    for form, pattern in FORMS.items():
        for found in pattern.finditer(file.source.code):
            if not file.source.is_test(found.start()):
                text = f"`{form}` hides code from this check: use a module, or the crate's own name"
                yield Finding(file.path, file.source.line(found.start()), form, text)


def renamed_marks(file: File, rules: Rules) -> Iterator[Finding]:
    """Imports of the attribute by which handlers are known, or of all of its library."""
    mark = tuple(re.findall(r"\w+", rules.handlers.mark))
    for one in file.source.imports:
        if one.path and one.path == mark[: len(one.path)]:
            text = f"handlers are known by `{rules.handlers.mark}`: do not import {'::'.join(one.path_with_star)}"
            yield Finding(file.path, file.source.line(one.offset), "renamed mark", text)
