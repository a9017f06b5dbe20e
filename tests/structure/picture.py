"""The picture of the rooms: crates, what is in them, and who imports whom, as SVG.

Thickness comes in three steps and arrows that follow from others are left out, so that the picture changes when there
is something new to say and not with every import.
"""

import textwrap
from collections.abc import Iterator
from xml.sax.saxutils import escape

from layout import Arrow, Box, Direction, Layout, arranged, downward, without_implied
from rules import Rules
from svg import STYLE, arrow, rectangle, text
from workspace import Module, Workspace, is_other_target

PICTURE_PATH = "docs/images/architecture.svg"
WIDTH = 800
MARGIN = 14
PADDING = 16
GAP = 18
ROW_GAP = 32
CRATE_GAP = 34
CRATE_HEAD = 46
NAME_SIZE, SMALL_SIZE, HEAD_SIZE = 13, 11, 15
LETTER = 0.61
"""Width of a letter of a monospaced font, at most, compared with its height."""
ABOUT_LETTER_WIDTH = 6.4
SMALL_LINE_LETTERS = 22
LEGEND = [
    "A room is a folder or file right inside a crate's src; grey: folders inside of it; blue: other crates it uses.",
    "Arrows point to what is imported, thicker for many files; those that follow from others are left out.",
]
RING_LEGEND = "Red: rooms that form a circle, which is to be cut."


def picture(workspace: Workspace, rules: Rules) -> str:
    """The whole SVG."""
    rooms = sorted({module[:2] for module in workspace.files if len(module) > 1 and not is_other_target(module)})
    imports = counted_imports(workspace)
    crates = {name: CrateDrawing(workspace, name, rooms, imports, width) for name, width in widths(workspace, rules)}
    boxes = {name: Box(crate.width, crate.height) for name, crate in crates.items()}
    counts: dict[Arrow, int] = {}
    for (source, target), count in imports.items():
        if source[0] != target[0]:
            counts[source[0], target[0]] = counts.get((source[0], target[0]), 0) + count
    turned = downward(set(counts))
    kept = without_implied(set(turned))
    layout = arranged(boxes, kept, WIDTH - 2 * MARGIN, GAP, CRATE_GAP)
    height = layout.height + 2 * MARGIN + 56
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {round(height)}" role="img">',
        "<title>The crates and rooms of afterimage</title>",
        f"<desc>{escape(description(crates, counts))}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{round(height)}"/>',
    ]
    for name, crate in crates.items():
        box = layout.boxes[name]
        lines += crate.drawn(MARGIN + box.x - box.width / 2, MARGIN + box.y)
    lines += arrows(layout, turned, counts, MARGIN, MARGIN)
    has_ring = any(
        direction != Direction.DOWN
        for one in [turned, *(c.turned for c in crates.values())]
        for direction in one.values()
    )
    lines += legend(height - 50, has_ring)
    return "\n".join([*lines, "</svg>"]) + "\n"


def counted_imports(workspace: Workspace) -> dict[tuple[Module, Module], int]:
    """Pairs of files between two rooms; what a crate's root passes on or starts is no import of a room's."""
    links = [link for link in workspace.links if not is_other_target(link.source.module)]
    pairs = {(link.source.module, link.target.module) for link in links}
    counts: dict[tuple[Module, Module], int] = {}
    for source, target in sorted(pairs):
        rooms = (source[:2], target[:2])
        if rooms[0] != rooms[1] and all(len(room) == 2 for room in rooms):
            counts[rooms] = counts.get(rooms, 0) + 1
    return counts


def widths(workspace: Workspace, rules: Rules) -> Iterator[tuple[str, float]]:
    """The crates from top to bottom, and how wide each may be: those of a line share it."""
    for line in [*rules.layers, sorted(crate for crate in workspace.crates if rules.level(crate) is None)]:
        there = [crate for crate in line if crate in workspace.crates]
        space = WIDTH - 2 * MARGIN - (GAP + PADDING) * (len(there) - 1)
        for crate in there:
            yield crate, space / len(there)


def description(crates: dict[str, "CrateDrawing"], counts: dict[Arrow, int]) -> str:
    """The picture in words."""
    sentences = []
    for name, crate in crates.items():
        used = sorted(target for source, target in counts if source == name)
        uses = f" and uses {', '.join(used)}" if used else ""
        sentences.append(f"{name} has {', '.join(crate.labels.values())}{uses}.")
    return " ".join(sentences)


class CrateDrawing:
    """A crate with its rooms."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        rooms: list[Module],
        imports: dict[tuple[Module, Module], int],
        max_width: float,
    ) -> None:
        self.name = name
        self.about = workspace.crates[name].manifest["package"].get("description", "")
        own = [room for room in rooms if room[0] == name]
        self.labels = {"::".join(room): room[1] for room in own}
        self.inner = {"::".join(room): wrapped(inner_folders(workspace, room)) for room in own}
        self.uses = {
            "::".join(room): wrapped(sorted({target[0] for source, target in imports if source == room} - {name}))
            for room in own
        }
        boxes = {room: self.box(room) for room in self.labels}
        self.counts = {
            ("::".join(source), "::".join(target)): count
            for (source, target), count in imports.items()
            if source[0] == target[0] == name
        }
        self.turned = downward(set(self.counts))
        against = {arrow for arrow, direction in self.turned.items() if direction != Direction.DOWN}
        kept = without_implied(set(self.turned)) | against
        self.layout = arranged(boxes, kept, max_width - 2 * PADDING, GAP, ROW_GAP)
        self.width = max_width
        self.about_lines = textwrap.wrap(self.about, int((max_width - 2 * PADDING) / ABOUT_LETTER_WIDTH))
        self.head = CRATE_HEAD + 16 * (len(self.about_lines) - 1)
        self.height = self.head + self.layout.height + PADDING

    def box(self, room: str) -> Box:
        small = self.inner[room] + self.uses[room]
        letters = max([len(line) for line in small], default=0)
        width = max(len(self.labels[room]) * NAME_SIZE, letters * SMALL_SIZE) * LETTER + 18
        return Box(round(width), 27 + 14 * len(small))

    def drawn(self, x: float, y: float) -> Iterator[str]:
        yield rectangle("crate", x, y, self.width, self.height, 10)
        yield text("head", x + PADDING, y + 24, self.name)
        for index, line in enumerate(self.about_lines):
            yield text("about", x + PADDING, y + 41 + 16 * index, line)
        x, y = x + PADDING, y + self.head + 4
        yield from arrows(self.layout, self.turned, self.counts, x, y)
        for room, label in self.labels.items():
            box = self.layout.boxes[room]
            yield rectangle("room", x + box.x - box.width / 2, y + box.y, box.width, box.height, 5)
            line = y + box.y + 18
            yield text("name", x + box.x, line, label, "middle")
            for kind, small in (("small", self.inner[room]), ("uses", self.uses[room])):
                for words in small:
                    line += 14
                    yield text(kind, x + box.x, line, words, "middle")


def inner_folders(workspace: Workspace, room: Module) -> list[str]:
    """The folders inside of a room."""
    inside = {module: file for module, file in workspace.files.items() if module[:2] == room and len(module) > 2}
    return sorted({module[2] for module, file in inside.items() if len(module) > 3 or file.is_folders_own})


def wrapped(words: list[str]) -> list[str]:
    return textwrap.wrap(" ".join(words), SMALL_LINE_LETTERS)


def arrows(
    layout: Layout, turned: dict[Arrow, Direction], counts: dict[Arrow, int], x: float, y: float
) -> Iterator[str]:
    """The arrows between the boxes of a layout."""
    starts = ports(layout, 0)
    ends = ports(layout, -1)
    for (upper, lower), way in layout.ways.items():
        direction = turned[upper, lower]
        count = counts.get((upper, lower), 0) + counts.get((lower, upper), 0)
        points = []
        for name in way:
            box = layout.boxes[name]
            if name == upper:
                start = x + starts[upper, lower]
                points.append((start, y + box.y + box.height))
                if box.row_height > box.height + ROW_GAP / 2:
                    points.append((start, y + box.y + box.row_height))
            elif name == lower:
                points.append((x + ends[upper, lower], y + box.y))
            else:
                points += [(x + box.x, y + box.y), (x + box.x, y + box.y + box.row_height)]
        yield from arrow(points, count, direction)


def ports(layout: Layout, end: int) -> dict[Arrow, float]:
    """Where arrows touch their boxes, side by side in the order of where they come from."""
    by_box: dict[str, list[Arrow]] = {}
    for way_arrow, way in layout.ways.items():
        by_box.setdefault(way[end], []).append(way_arrow)
    found = {}
    for name, touching in by_box.items():
        box = layout.boxes[name]
        next_box = {one: layout.boxes[layout.ways[one][1 if end == 0 else -2]].x for one in touching}
        touching.sort(key=lambda one: (next_box[one], one))
        distance = min(16.0, (box.width - 16) / max(1, len(touching) - 1))
        for index, one in enumerate(touching):
            found[one] = box.x + (index - (len(touching) - 1) / 2) * distance
    return found


def legend(y: float, has_ring: bool) -> Iterator[str]:
    for index, line in enumerate([*LEGEND, RING_LEGEND] if has_ring else LEGEND):
        yield text("about", MARGIN, y + 6 + 16 * index, line)
