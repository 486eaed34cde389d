"""The next batch, whose rollout begins while the policy is trained on this one."""

from __future__ import annotations

from dataclasses import dataclass

from swirl_lightning.algorithm.experience import LatentActions
from swirl_lightning.algorithm.rollouts import asked, infer_latents
from swirl_lightning.types import Prefixes, Role, UnlabelledPair
from swirl_lightning.world_model.inference import Inference


@dataclass
class Ahead:
    """What is known of the next batch before its turn: its pairs, and in Phase I their latent actions.

    Those are the frozen IDM's, whenever they are drawn.
    """

    upcoming: tuple[UnlabelledPair, ...] = ()  # the next batch's pairs; none where nothing is drawn ahead
    _of: tuple[tuple[UnlabelledPair, ...], int] | None = None  # pairs and epoch
    _inferred: tuple[LatentActions, Prefixes | None] | None = None

    def begin(self, inference: Inference, role: Role, group_size: int, seed: int, epoch: int) -> None:
        """Draws the latent actions of Phase I, and lets the engine begin with the groups."""
        self._of = (self.upcoming, epoch)
        self._inferred = infer_latents(inference, self.upcoming, seed, epoch) if role is Role.FWM else None
        latent = None if self._inferred is None else self._inferred[0]
        prompts, seeds = asked(inference, role, self.upcoming, latent, seed, epoch)
        inference.begin(role, [prompt.ids for prompt in prompts], group_size, seeds=seeds)

    def take(self, pairs: tuple[UnlabelledPair, ...], epoch: int) -> tuple[LatentActions, Prefixes | None] | None:
        """The latent actions of these pairs and what the IDM has computed of them, if it was their rollout that began."""
        kept, self._inferred = self._inferred, None
        return kept if self._of == (pairs, epoch) else None
