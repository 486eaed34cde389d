"""What BFCL's simulators hold, as JSON values, and what a call changed in it."""

from __future__ import annotations

from typing import Any


def state_of(instance: Any) -> dict[str, Any]:
    """Public attributes of a simulator as JSON values; of the file system also the path of the current directory."""
    state = {
        name: render(value) for name, value in vars(instance).items() if not name.startswith("_") and name != "long_context"
    }
    place, path = getattr(instance, "_current_dir", None), []
    while place is not None:
        path.append(place.name)
        place = place.parent
    return {**state, "cwd": "/".join(reversed(path))} if path else state


def render(value: Any) -> Any:
    """A simulator's value as a JSON value: a directory is an object of its entries, a file its content."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): render(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((render(item) for item in value), key=str)
    if hasattr(value, "contents"):
        return render(value.contents)
    return value.content if hasattr(value, "content") else str(value)


def changes(before: Any, after: Any) -> dict[str, Any]:
    """What a call did: ``changed`` has paths with new values, ``removed`` paths that are gone; either only if there are any."""
    changed: dict[str, Any] = {}
    removed: list[str] = []

    def compare(path: str, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            pairs = [(key, old.get(key), new[key]) for key in new if key in old]
            removed.extend(f"{path}{key}" for key in old if key not in new)
            changed.update({f"{path}{key}": value for key, value in new.items() if key not in old})
        elif isinstance(old, list) and isinstance(new, list) and len(old) <= len(new):
            pairs = [(str(i), *pair) for i, pair in enumerate(zip(old, new, strict=False))]
            changed.update({f"{path}{i}": new[i] for i in range(len(old), len(new))})
        else:
            changed[path.removesuffix("/")] = new
            return
        for key, one, other in pairs:
            if one != other:
                compare(f"{path}{key}/", one, other)

    if before != after:
        compare("", before, after)
    return {name: value for name, value in (("changed", changed), ("removed", removed)) if value}
