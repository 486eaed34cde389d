"""The table of docs/models.md: ``python -m tests.architectures.table`` writes it anew."""

import logging
import re
from pathlib import Path

from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.scorer import prefer_shared_prefix
from swirl_lightning.scoring.self_check import ScoringPath, UnsupportedModelError, scoring_path
from tests.architectures.families import FAMILIES, tiny

FILE = Path(__file__).parents[2] / "docs" / "models.md"
_RECURRENT = ["falcon_h1", "falcon_mamba", "mamba", "mamba2", "jamba", "bamba", "granitemoehybrid", "nemotron_h", "zamba"]
_RECURRENT += ["zamba2", "recurrent_gemma", "rwkv", "xlstm"]
_WHY = {
    "diffllama": "calls attention twice a layer",
    "doge": "adds a mask of its own, made from the values",
    "llama4_text": "attends in chunks, and scales queries by their place in the row",
    "phimoe": "tells the mask of its sliding window, and not the attention",
    **dict.fromkeys(
        ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "minimax", "olmo_hybrid"),
        "linear attention runs along the row, and would run from one member into the next",
    ),
    **dict.fromkeys(
        ("lfm2", "lfm2_moe", "lfm3", "zaya"), "a convolution runs along the row, and would run from one member into the next"
    ),
    **dict.fromkeys(_RECURRENT, "a recurrent state runs along the row, and would run from one member into the next"),
    **dict.fromkeys(
        ("gpt_neo", "gptj", "codegen", "bloom", "mpt", "falcon", "openai-gpt", "xglm", "gpt_neox_japanese", "roformer"),
        "its attention cannot be exchanged",
    ),
    **dict.fromkeys(("roberta", "xlm-roberta"), "its own positions begin behind the id of the padding token"),
}
"""What is behind it where a family's rows cannot share prefixes, found by reading its code in transformers."""
_ROW = re.compile(r"^\| `([\w-]+)` \| (\w+) rows \| ([^|]+) \|", re.MULTILINE)


def documented():
    """Paths of scoring and rollouts of every supported family, as the table has them."""
    return {name: (ScoringPath(one), RolloutPath(other)) for name, one, other in _ROW.findall(FILE.read_text())}


def row(name):
    """The line of a family, of what the self-check says of it here."""
    model, said = tiny(name), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("swirl_lightning.scoring.self_check")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    prefer_shared_prefix(model)
    try:
        scoring, rollouts = scoring_path(model, gradients=True), rollout_path(model)
    except UnsupportedModelError as error:
        return f"| `{name}` | **refused** | | {_reasons(str(error).split('nothing is trained: ')[1].split('. Choose')[0])} |"
    finally:
        logger.removeHandler(handler)
    why = "; ".join(_reasons(text[text.index("(") + 1 : -1].rsplit("; ", 1)[0]) for text in said if "; " in text)
    return f"| `{name}` | {scoring} rows | {rollouts} | {': '.join(filter(None, (_WHY.get(name), why)))} |"


def _reasons(text):
    """What was wrong with the rungs before, without the figures, which differ by machine."""
    text = re.sub(r"log-probabilities are off by [^;]+", "other log-probabilities", text)
    return re.sub(r"the gradient of [^;]+", "other gradients", text).replace("|", "/")


def write():
    """Writes the table behind the text that is there."""
    text = FILE.read_text().split("| family |")[0]
    head = "| family | scored by | rollouts | what does not work, and why |\n|---|---|---|---|\n"
    FILE.write_text(text + head + "\n".join(map(row, FAMILIES)) + "\n")


if __name__ == "__main__":
    write()
