"""Boxes in rows, so that arrows point down and cross as little as possible.

Sugiyama's method in its simplest form: every box gets a row below all boxes that point to it, long arrows get a place
of their own in the rows that they pass, rows are ordered by the middle of their neighbours, then boxes move as near to
their neighbours as their order allows. The same input gives the same picture.
"""

from dataclasses import dataclass, field
from enum import Enum

from circles import Graph, circles, graph

SWEEPS = 12
PASSAGE_WIDTH = 8
"""What an arrow needs in a row that it passes."""
Arrow = tuple[str, str]


@dataclass
class Box:
    """A thing with a size; `x` is its middle, `y` its upper edge. Its row is as high as the highest of it."""

    width: float
    height: float
    x: float = 0
    y: float = 0
    row_height: float = 0
    is_passage: bool = False


@dataclass
class Layout:
    boxes: dict[str, Box]
    width: float
    height: float
    ways: dict[Arrow, list[str]] = field(default_factory=dict)
    """The boxes that an arrow touches, from its upper to its lower end."""


class Direction(Enum):
    """Where an arrow points that is drawn from an upper to a lower box."""

    DOWN = "down"
    UP = "up"
    BOTH = "both"


def downward(arrows: set[Arrow]) -> dict[Arrow, Direction]:
    """The arrows, some of them turned, so that there is no circle."""
    turned = {arrow: Direction.DOWN for arrow in arrows}
    while rings := circles(graph(sorted(turned))):
        members = rings[0]
        # Of a circle's members, the one that imports most, compared with what imports it, stands highest.
        inner = [arrow for arrow in sorted(turned) if members.issuperset(arrow)]
        top = min(members, key=lambda one: (sum((b == one) - (a == one) for a, b in inner), one))
        for source, target in inner:
            if target == top:
                del turned[source, target]
                turned[target, source] = Direction.BOTH if (target, source) in turned else Direction.UP
    return turned


def without_implied(arrows: set[Arrow]) -> set[Arrow]:
    """Arrows without those that follow from a longer way."""
    targets = graph(sorted(arrows))
    return {(a, b) for a, b in arrows if not any(reaches(targets, c, b) for c in targets[a] if c != b)}


def reaches(targets: Graph, start: str, end: str) -> bool:
    seen = [start]
    for node in seen:
        if node == end:
            return True
        seen += [target for target in targets[node] if target not in seen]
    return False


def rows_of(boxes: dict[str, Box], arrows: set[Arrow], max_width: float, gap: float) -> dict[str, int]:
    """The row of each box: below everything that points to it, and where there is room."""
    row: dict[str, int] = {}
    used: dict[int, float] = {}
    sources = {name: {a for a, b in arrows if b == name} for name in boxes}
    while len(row) < len(boxes):
        ready = [name for name in boxes if name not in row and all(a in row for a in sources[name])]
        # Those that much depends on first: they leave room for the others below.
        name = min(ready, key=lambda one: (max([row[a] + 1 for a in sources[one]], default=0), one))
        place = max([row[a] + 1 for a in sources[name]], default=0)
        while used.get(place, -gap) + gap + boxes[name].width > max_width and used.get(place):
            place += 1
        row[name] = place
        used[place] = used.get(place, -gap) + gap + boxes[name].width
    return row


def arranged(boxes: dict[str, Box], arrows: set[Arrow], max_width: float, gap: float, row_gap: float) -> Layout:
    """Places boxes whose arrows form no circle."""
    row = rows_of(boxes, arrows, max_width, gap)
    layout = Layout(dict(boxes), max_width, 0)
    rows: list[list[str]] = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for name in sorted(boxes):
        rows[row[name]].append(name)
    for source, target in sorted(arrows):
        way = [source]
        for between in range(row[source] + 1, row[target]):
            passage = f"{source}>{target}@{between}"
            layout.boxes[passage] = Box(PASSAGE_WIDTH, 0, is_passage=True)
            rows[between].append(passage)
            way.append(passage)
        layout.ways[source, target] = [*way, target]
    neighbours = graph([])
    for way in layout.ways.values():
        for upper, lower in zip(way, way[1:], strict=False):
            neighbours.setdefault(upper, []).append(lower)
            neighbours.setdefault(lower, []).append(upper)
    rows = ordered(rows, neighbours)
    place_across(layout, rows, neighbours, gap)
    for names in rows:
        height = max(layout.boxes[name].height for name in names)
        for name in names:
            box = layout.boxes[name]
            box.y, box.row_height = layout.height, height
        layout.height += height + row_gap
    layout.height -= row_gap if rows else 0
    return layout


def ordered(rows: list[list[str]], neighbours: Graph) -> list[list[str]]:
    """The rows in an order with few crossings."""
    best, fewest = rows, crossings(rows, neighbours)
    for sweep in range(SWEEPS):
        rows = [list(names) for names in rows]
        indices = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for index in indices:
            fixed = rows[index - 1 if sweep % 2 == 0 else index + 1]
            position = {name: (at + 0.5) / len(fixed) for at, name in enumerate(fixed)}
            own = {name: (at + 0.5) / len(rows[index]) for at, name in enumerate(rows[index])}

            def middle(name: str, position: dict[str, float] = position, own: dict[str, float] = own) -> float:
                places = [position[other] for other in neighbours.get(name, []) if other in position]
                return sum(places) / len(places) if places else own[name]

            rows[index].sort(key=middle)
        count = crossings(rows, neighbours)
        if count < fewest:
            best, fewest = rows, count
    return best


def crossings(rows: list[list[str]], neighbours: Graph) -> int:
    count = 0
    for upper, lower in zip(rows, rows[1:], strict=False):
        position = {name: at for at, name in enumerate(lower)}
        ends = [
            (at, position[other])
            for at, name in enumerate(upper)
            for other in neighbours.get(name, [])
            if other in position
        ]
        count += sum(a < c and b > d for a, b in ends for c, d in ends)
    return count


def place_across(layout: Layout, rows: list[list[str]], neighbours: Graph, gap: float) -> None:
    """Gives boxes their `x`: near the middle of their neighbours, in order and inside the width."""
    boxes = layout.boxes
    for names in rows:
        spread(layout, names, {name: layout.width / 2 for name in names}, gap)
    for _ in range(SWEEPS):
        for names in [*rows, *reversed(rows)]:
            wanted = {}
            for name in names:
                around = [boxes[other].x for other in neighbours.get(name, [])]
                wanted[name] = sum(around) / len(around) if around else boxes[name].x
            spread(layout, names, wanted, gap)


def spread(layout: Layout, names: list[str], wanted: dict[str, float], gap: float) -> None:
    """Moves the boxes of a row as near as possible to where they want to be, without overlap."""
    boxes = [layout.boxes[name] for name in names]
    space_left = layout.width - sum(box.width for box in boxes)
    gap = min(gap, space_left / max(1, len(boxes) - 1))
    offsets = [0.0]
    for left, right in zip(boxes, boxes[1:], strict=False):
        space = gap / 2 if left.is_passage or right.is_passage else gap
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + space)
    # Without offsets, "no overlap" means "not descending": neighbours that want to pass each other meet halfway.
    groups: list[list[float]] = []
    for name, offset in zip(names, offsets, strict=True):
        groups.append([wanted[name] - offset])
        while len(groups) > 1 and mean(groups[-2]) > mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    places = [mean(group) for group in groups for _ in group]
    lowest = boxes[0].width / 2
    highest = layout.width - boxes[-1].width / 2 - offsets[-1]
    for box, place, offset in zip(boxes, places, offsets, strict=True):
        box.x = max(lowest, min(place, highest)) + offset


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)
