"""A new small model: an architecture without weights, its tokenizer trained on the data that it will learn from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from swirl_lightning.codecs.bpe import Pieces, texts, train_tokenizer
from swirl_lightning.codecs.image import image_codec
from swirl_lightning.codecs.image_models import load_image_model
from swirl_lightning.codecs.text import TextCodec
from swirl_lightning.hints import did_you_mean
from swirl_lightning.types import Splits, Transition, UnlabelledPair

if TYPE_CHECKING:
    from lightning import Trainer

MODEL = "model"
"""Folder of a run's new model, in the run folder."""
_MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class NewModel:
    """A small untrained causal LM and its tokenizer, made for the data.

    Attributes:
        model_type: Architecture, by its name in transformers (llama, qwen2, gpt2, ...).
        hidden_size: Width.
        layers: Number of layers.
        heads: Attention heads.
        intermediate_size: Width of the MLP; None takes three times the hidden size.
        max_positions: Longest sequence.
        vocab_size: Most tokens of the tokenizer.
        pieces: Tokens within ``words``, or within ``fields`` of JSON, of calls and of tags: shorter texts, for tools and pages.
        codec: Folder of an image codec (``swirl codec``), where states are images; copied into the model folder.
        extra: Further fields of the model configuration.
    """

    model_type: str = "llama"
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int | None = None
    max_positions: int = 1024
    vocab_size: int = 512
    pieces: Pieces = "words"
    codec: str | None = None
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses what no architecture can be.

        Raises:
            ValueError: naming the field.
        """
        if self.model_type not in CONFIG_MAPPING:
            near = did_you_mean(self.model_type, CONFIG_MAPPING, listed=False)
            raise ValueError(f"model_type: transformers knows no {self.model_type!r}{near}")
        for name in ("hidden_size", "layers", "heads", "max_positions"):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if self.hidden_size % self.heads:
            nearest = max(1, round(self.hidden_size / self.heads)) * self.heads
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}; {nearest} would be")

    def make(self, rows: Sequence[Transition | UnlabelledPair], folder: Path) -> int:
        """Writes a model folder without weights; loading it initialises them at random.

        Args:
            rows: training data: labelled transitions, and state-only pairs.
            folder: to write.

        Returns:
            Number of token ids.

        Raises:
            FileNotFoundError: if there is no such image codec.
            ValueError: if the data hold images and there is no codec, or the other way round.
        """
        if not rows:
            raise ValueError("a new model needs training data: the training split is empty")
        if isinstance(rows[0].state, bytes) and self.codec is None:
            raise ValueError("the data holds images: give --codec (model.world_model.base.codec), the folder of an image codec")
        if isinstance(rows[0].state, str) and self.codec is not None:
            raise ValueError(f"the data holds text, of which no image codec can be made use: leave {self.codec!r} out")
        tokenizer = train_tokenizer(rows, self.vocab_size, self.pieces)
        codec = TextCodec(tokenizer) if self.codec is None else image_codec(tokenizer, load_image_model(self.codec))
        fields: dict[str, Any] = {
            "vocab_size": codec.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "intermediate_size": self.intermediate_size or 3 * self.hidden_size,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **(self.extra or {}),
        }
        AutoConfig.for_model(self.model_type, **fields).save_pretrained(folder)
        codec.save_pretrained(folder)
        if self.codec is None and (known := len(AutoTokenizer.from_pretrained(folder))) > fields["vocab_size"]:
            # some architectures' tokenizers add special tokens of their own on loading (Qwen2: <|endoftext|>)
            AutoConfig.for_model(self.model_type, **{**fields, "vocab_size": known}).save_pretrained(folder)
        return codec.vocab_size

    def for_run(self, trainer: Trainer, splits: Splits | None) -> str:
        """The model folder of a run: found, if it was made from the same options and text, or made now, whole or not at all.

        Args:
            trainer: of the run; its ``default_root_dir`` is the run folder.
            splits: of the data, of which the training split is read; None takes the folder as it is.

        Returns:
            The folder.

        Raises:
            ValueError: if the folder holds another model.
        """
        run_dir = Path(trainer.default_root_dir)
        folder = run_dir / MODEL
        if splits is None:
            return str(folder)
        rows: list[Transition | UnlabelledPair] = [*splits.labelled, *splits.unlabelled]
        known, made_from = identity(folder), self._made_from(rows)
        if known != made_from:
            if folder.exists() and (known is None or any(run_dir.glob("checkpoints/*"))):
                raise ValueError(
                    f"{folder} holds another model than model.world_model.base describes, or one of other training text: name "
                    f"it to go on with it (model.world_model.base: {folder}), move it away, or choose another run folder"
                )
            if trainer.is_global_zero:
                self._put(rows, folder, made_from)
        trainer.strategy.barrier("new model")
        return str(folder)

    def _put(self, rows: Sequence[Transition | UnlabelledPair], folder: Path, made_from: Mapping[str, Any]) -> None:
        scratch = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed here
        scratch.mkdir(parents=True)
        self.make(rows, scratch)
        (scratch / _MADE_FROM).write_text(json.dumps(made_from, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)

    def _made_from(self, rows: Sequence[Transition | UnlabelledPair]) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for text in texts(rows):
            digest.update(f"{len(text)} {text}".encode(errors="surrogatepass"))
        images = None if self.codec is None else load_image_model(self.codec).key
        made_from = {**asdict(self), "text": digest.hexdigest(), "images": images}
        return dict(json.loads(json.dumps(made_from)))


def identity(folder: str | Path) -> dict[str, Any] | None:
    """What a model folder of a run was made from; None for any other model."""
    file = Path(folder) / _MADE_FROM
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def check_made_from(known: Mapping[str, Any] | None, base: str) -> None:
    """A checkpoint of a new model goes with the tokenizer that it was trained with.

    Args:
        known: ``identity`` of the checkpoint's base.
        base: what the checkpoint is about to be loaded into.

    Raises:
        ValueError: if it was another new model.
    """
    if known is not None and known != identity(base):
        raise ValueError(
            f"the checkpoint is of another new model than {base}, made from other options or other training text: name the "
            "folder 'model' of the checkpoint's run, model.world_model.base: RUN/model"
        )
