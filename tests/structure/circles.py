"""Circles in a graph of imports."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)
Graph = dict[Node, list[Node]]


def graph(arrows: Iterable[tuple[Node, Node]]) -> Graph:
    """What each node points to, in the order of the arrows."""
    targets: Graph = {}
    for source, target in arrows:
        found = targets.setdefault(source, [])
        targets.setdefault(target, [])
        if target not in found:
            found.append(target)
    return targets


def circles(targets: Graph) -> list[set[Node]]:
    """The strongly connected components of more than one node: sets in which each node reaches every other."""
    # Tarjan's algorithm with a stack of its own, since chains of imports are longer than Python likes to recurse.
    found: list[set[Node]] = []
    number: dict[Node, int] = {}
    lowest: dict[Node, int] = {}
    open_nodes: list[Node] = []
    for root in targets:
        if root in number:
            continue
        visits = [(root, iter(targets[root]))]
        number[root] = lowest[root] = len(number)
        open_nodes.append(root)
        while visits:
            node, rest = visits[-1]
            for target in rest:
                if target not in number:
                    number[target] = lowest[target] = len(number)
                    open_nodes.append(target)
                    visits.append((target, iter(targets[target])))
                    break
                if target in open_nodes:
                    lowest[node] = min(lowest[node], number[target])
            else:
                visits.pop()
                if visits:
                    lowest[visits[-1][0]] = min(lowest[visits[-1][0]], lowest[node])
                if lowest[node] == number[node]:
                    start = open_nodes.index(node)
                    component = set(open_nodes[start:])
                    del open_nodes[start:]
                    if len(component) > 1:
                        found.append(component)
    return found


def shortest_circle(targets: Graph, members: set[Node], start: Node) -> list[Node]:
    """A way from a node of a circle back to itself, with as few stops as possible."""
    came_from: dict[Node, Node] = {}
    queue = [start]
    for node in queue:
        for target in targets[node]:
            if target == start:
                way = [node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target in members and target not in came_from:
                came_from[target] = node
                queue.append(target)
    return []
