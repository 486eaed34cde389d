"""When a warm-up may end before its last epoch: validation says that the roles are good enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from swirl_lightning.types import Role, Transition
from swirl_lightning.world_model.inference import Inference


def check_thresholds(thresholds: Mapping[str, float] | None) -> dict[str, float]:
    """What ends the warm-up early: shares of right answers, by role.

    Raises:
        ValueError: naming the role or the share that is off.
    """
    for role, share in (thresholds or {}).items():
        if role not in (known := [r.value for r in Role]):
            raise ValueError(f"warmup_until: {role!r} is not a role; name {' or '.join(known)}")
        if not 0 <= share <= 1:
            raise ValueError(f"warmup_until.{role} is a share of right answers between 0 and 1, got {share}")
    return dict(thresholds or {})


def measure_roles(
    inference: Inference,
    pairs: Sequence[Transition],
    thresholds: Mapping[str, float],
    agree: Callable[[float], float],
) -> tuple[dict[str, float], str | None]:
    """Shares of right answers, role by role, up to the first that falls short: the roles after it need not be asked.

    Args:
        inference: asks the models.
        pairs: labelled validation transitions.
        thresholds: share that each role must reach.
        agree: makes the ranks use one share, whatever another machine's rounding.

    Returns:
        The shares, and the role that falls short; None where all are good enough.
    """
    right: dict[str, float] = {}
    for role, least in thresholds.items():
        right[role] = agree(inference.exact_match(Role(role), pairs))
        if right[role] < least:
            return right, role
    return right, None


def announce_end(
    right: Mapping[str, float], short: str | None, thresholds: Mapping[str, float], epochs: int, most: int
) -> None:
    """Says that the warm-up ends here, and why; nothing where it goes on.

    Args:
        right: shares of right answers on the validation pairs.
        short: a role that is not good enough yet; None ends the warm-up.
        thresholds: what is good enough.
        epochs: taken.
        most: to be taken.
    """
    if short is None:
        shares = ", ".join(f"{role.upper()} {share:.1%}" for role, share in right.items())
        rank_zero_info(f"right on the validation pairs: {shares}; the warm-up ends after {epochs} epochs")
    elif epochs == most:
        rank_zero_warn(
            f"the warm-up ends with the {short.upper()} right on {right[short]:.1%} of the validation pairs, not on "
            f"{thresholds[short]:.1%} (warmup_until): SWIRL gains little from a weak pair; more epochs or labels"
        )
