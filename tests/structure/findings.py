"""What was found, and what of it is known."""

from dataclasses import dataclass

from rules import Rules


@dataclass(frozen=True)
class Finding:
    """A place where the code is not as the rules want it."""

    path: str
    line: int
    fault: str
    """Short and without numbers that move, for the list of those that are known."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def without_known(findings: list[Finding], rules: Rules) -> list[Finding]:
    """What is not known, and what is known but not there."""
    there = {(finding.path, finding.fault) for finding in findings}
    known = {(entry.file, entry.fault) for entry in rules.known}
    new = [finding for finding in findings if (finding.path, finding.fault) not in known]
    gone = [
        Finding(entry.file, 1, entry.fault, f"{rules.path.name} knows `{entry.fault}`, which is mended: take it out")
        for entry in rules.known
        if (entry.file, entry.fault) not in there
    ]
    return new + gone
