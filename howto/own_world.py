"""A world of your own: a recorder, and a DataModule that gives it a name in YAML. Modules are found on PYTHONPATH.

swirl record own_world:CounterRecorder --out data/counter --env.n_episodes 50
swirl fit --config configs/small.yaml --data own_world.CounterDataModule --data.recorder.n_episodes 50
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swirl_lightning import Transition, WorldDataModule


@dataclass
class CounterRecorder:
    """Counts up; the fields are its options."""

    n_episodes: int = 100
    seed: int = 0

    def episodes(self) -> int:
        return self.n_episodes

    def manifest(self) -> dict[str, Any]:
        return {"simulator": "counter", "version": "1"}

    def record(self) -> Iterator[list[Transition]]:
        for k in range(self.n_episodes):
            rng, counts = random.Random(self.seed * 1_000_003 + k), [0]
            added = [rng.randint(1, 9) for _ in range(8)]
            for add in added:
                counts.append(counts[-1] + add)
            yield [Transition(f"{counts[i]}", f"{counts[i + 1]}", f"add {added[i]}", "", f"run/{k}", i) for i in range(8)]


class CounterDataModule(WorldDataModule):
    def __init__(self, recorder: CounterRecorder = CounterRecorder(), path: str = "data/counter", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)
