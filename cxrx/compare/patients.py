"""Who is the same patient, where several files say it of their own films only."""

from __future__ import annotations

from collections.abc import Iterable


def smallest_of(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for every name the smallest of those that `links` join it with, directly or over others (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for one, other in links:
        smaller, larger = sorted((root(one), root(other)))
        parent[larger] = smaller
    return {name: root(name) for name in list(parent)}
