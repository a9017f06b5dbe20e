"""Blanks for what is not code in a Rust file: comments, literals, and the mark of raw identifiers."""

import re

NOT_CODE = re.compile(
    r"//[^\n]*"
    r"|/\*"
    r'|\b[bc]?r(?P<hashes>#*)".*?"(?P=hashes)'
    r'|\b[bc]?"(?:\\.|[^"\\])*"|"(?:\\.|[^"\\])*"'
    r"|'(?:\\(?:x\w\w|u\{\w+\}|.)|[^'\\\n])'"
    r"|\br#(?=\w)",
    re.DOTALL,
)
COMMENT_MARK = re.compile(r"/\*|\*/")


def blanked(text: str) -> str:
    """The text with spaces for all that is not code, each line and column where it was."""
    parts, offset = [], 0
    while found := NOT_CODE.search(text, offset):
        end = end_of_comment(text, found.start()) if found.group() == "/*" else found.end()
        parts += [text[offset : found.start()], re.sub(r"[^\n]", " ", text[found.start() : end])]
        offset = end
    return "".join([*parts, text[offset:]])


def end_of_comment(text: str, opening: int) -> int:
    """Behind the mark that closes the comment at `opening`; comments nest."""
    depth = 0
    for found in COMMENT_MARK.finditer(text, opening):
        depth += 1 if found.group() == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)
