"""The curves of a run as one SVG picture, drawn by matplotlib (the extra ``plot``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from swirl_lightning.hints import require

_PANELS = {  # title: values of a step that belong into one panel
    "NLL, nats a token": ("nll", "fwm_nll", "idm_nll", "weighted_nll", "dream_nll", "state_only_nll", "replay_nll"),
    "reward": ("reward", "posterior_reward"),
    "KL to the reference": ("kl",),
    "shares of groups and answers": ("zero_spread_share", "truncated_share", "agreement"),
}
_HELD_OUT = {"FWM": "fwm", "IDM": "idm"}
_MOST = 300  # points of a line; more are averaged
_INCHES = (10.0, 1.8)  # a panel
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "swirl",  # equal curves, equal page
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}


def draw(steps: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> str:
    """An ``<svg>`` element with a panel for each kind of value that there is, phase by phase.

    Args:
        steps: Lines of ``steps.jsonl``.
        measured: Greedy lines of ``metrics.jsonl``, of one split.

    Returns:
        The element; empty where there is nothing to draw.

    Raises:
        ImportError: without matplotlib.
    """
    panels = {title: [n for n in names if any(n in step for step in steps)] for title, names in _PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels and not measured:
        return ""
    require("matplotlib", "plot")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    count = len(panels) + bool(measured)
    with rc_context(_STYLE):
        figure = Figure(figsize=(_INCHES[0], _INCHES[1] * count), layout="constrained")
        axes = figure.subplots(count, sharex=True, squeeze=False)[:, 0].tolist()
        for axis, (title, names) in zip(axes, panels.items(), strict=False):
            _panel(axis, title, names, steps)
        if measured:
            _held_out(axes[-1], measured)
        _phases(axes, steps)
        axes[-1].set_xlabel("step")
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _panel(axis: Any, title: str, names: Sequence[str], steps: Sequence[Mapping[str, Any]]) -> None:
    for color, name in enumerate(names):
        label: str | None = name
        for _, phase in groupby(steps, key=lambda step: step["label"]):  # no line from one phase to the next
            xs, ys = thinned([(step["global_step"], step[name]) for step in phase if name in step])
            axis.plot(xs, ys, color=f"C{color}", marker="." if len(xs) == 1 else "", linewidth=1.2, label=label)
            label = None
    axis.set_title(title, loc="left")
    axis.legend(**_BESIDE)


def _held_out(axis: Any, measured: Sequence[Mapping[str, Any]]) -> None:
    for name, role in _HELD_OUT.items():
        points = [(row["global_step"], row[role]["exact_match"]) for row in measured]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axis.set_title(f"exact matches, {measured[0]['split']}, greedy", loc="left")
    axis.legend(**_BESIDE)


def _phases(axes: Sequence[Any], steps: Sequence[Mapping[str, Any]]) -> None:
    """A line where each phase begins, named in the first panel."""
    for label, phase in groupby(steps, key=lambda step: step["label"]):
        begins = next(phase)["global_step"]
        for axis in axes:
            axis.axvline(begins, color="0.85", linewidth=0.8, zorder=0)
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "va": "top", "color": "0.5", "fontsize": 7}
        axes[0].annotate(label, (begins, 1.0), **place)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Coordinates of at most 300 points: neighbours are averaged."""
    size = -(-len(points) // _MOST) or 1
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [part[-1][0] for part in parts], [sum(y for _, y in part) / len(part) for part in parts]
