"""``swirl record ENV``: transitions from a real simulator, as Parquet with a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser
from tqdm import tqdm

from swirl_lightning.data.schema import write_transitions
from swirl_lightning.data.splits import split_episodes
from swirl_lightning.environments.recording.jobs import JOURNAL, JobRecorder
from swirl_lightning.environments.registry import ENVIRONMENTS, Presplit, Recorder
from swirl_lightning.types import Transition, UnlabelledPair


def record(recorder: Recorder, out: Path, val_fraction: float, test_fraction: float, split_seed: int) -> Counter[str]:
    """Runs a recorder and writes its transitions.

    Args:
        recorder: makes episodes; where it knows splits of its own, fractions matter only for what it leaves open.
        out: folder to write.
        val_fraction: share of validation episodes.
        test_fraction: share of test episodes.
        split_seed: assigns episodes to splits.

    Returns:
        Transitions and episodes by split.
    """
    counts: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    presplit = isinstance(recorder, Presplit)
    if isinstance(recorder, JobRecorder):
        recorder.journal = out / JOURNAL  # an interrupted recording goes on where it was

    def rows() -> Iterator[tuple[Transition | UnlabelledPair, str | None]]:
        for episode in tqdm(recorder.record(), total=recorder.episodes(), desc="record", unit="episode"):
            if not episode:
                counts["empty episodes"] += 1
                continue
            name = episode[0].episode
            split = recorder.split_of(name) if isinstance(recorder, Presplit) else None
            if split is None:
                drawn = split_episodes(
                    [name], val_fraction=val_fraction, test_fraction=0.0 if presplit else test_fraction, seed=split_seed
                )
                split = drawn[name]
            counts[f"{split} episodes"] += 1
            counts[f"{split} transitions"] += len(episode)
            for transition in episode:
                if isinstance(transition, Transition):
                    actions[" ".join(transition.action.split()[:2])] += 1
                yield transition, split

    def manifest() -> dict[str, object]:
        return {**recorder.manifest(), "counts": dict(counts), "actions": dict(actions.most_common(100))}

    try:
        write_transitions(out, rows(), manifest)
    except ValueError as error:
        if counts.keys() != {"empty episodes"}:
            raise
        raise ValueError(f"{error}; every episode was left out: {recorder.manifest()}") from error
    (out / JOURNAL).unlink(missing_ok=True)
    return counts


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    arguments = list(argv)
    if not arguments or arguments[0] not in ENVIRONMENTS:
        rows = "\n".join(f"  {name:<12} {env.help}" for name, env in ENVIRONMENTS.items())
        print(f"usage: swirl record ENV --out DIR [options]\n\nworlds:\n{rows}\n\nswirl record ENV --help shows its options.")
        return 0 if not arguments or arguments[0] in ("-h", "--help") else 2
    kind = ENVIRONMENTS[arguments[0]].load()
    parser = ArgumentParser(prog=f"swirl record {arguments[0]}", description=ENVIRONMENTS[arguments[0]].help)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML with these options")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share of validation episodes")
    parser.add_argument("--test_fraction", type=float, default=0.2, help="share of test episodes")
    parser.add_argument("--split_seed", type=int, default=0, help="assigns episodes to splits")
    parser.add_class_arguments(kind, "env")
    values = parser.instantiate_classes(parser.parse_args(arguments[1:]))
    counts = record(values.env, values.out, values.val_fraction, values.test_fraction, values.split_seed)
    noted = {**counts, **getattr(values.env, "counts", {})}  # a recorder that leaves things out counts them
    width = max(map(len, noted))
    print("\n".join(f"{name:<{width}} {count}" for name, count in sorted(noted.items())))
    print(f"written to {values.out}")
    return 0
