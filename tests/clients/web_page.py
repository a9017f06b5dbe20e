"""What every test of a page in Chromium shares."""

from conftest import DEADLINE_SECONDS, PROGRAM, required_program
from playwright.sync_api import Page, expect

# Installed by tests/clients/run.
AXE = PROGRAM.parents[1] / "clients-npm/node_modules/axe-core/axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

expect.set_options(timeout=DEADLINE_SECONDS * 1000)


def check_accessibility(page: Page) -> None:
    """axe-core finds nothing, WCAG 2.2 AA included."""
    if not AXE.exists():
        required_program("npm")
    # Scripts that a debugger evaluates are not bound by the page's policy.
    page.evaluate(AXE.read_text())
    result = page.evaluate("(values) => axe.run({runOnly: {type: 'tag', values}})", TAGS)
    found = [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in result["violations"]]
    assert found == [], found
