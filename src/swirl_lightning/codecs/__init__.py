"""State and action codecs, and the constraints that keep a role inside its part of the vocabulary."""

from swirl_lightning.codecs.base import Codec, TokenConstraint
from swirl_lightning.codecs.constraints import (
    ChoiceConstraint,
    ConstraintSpec,
    GrammarConstraint,
    RangeConstraint,
    RegexConstraint,
    mask_for,
)
from swirl_lightning.codecs.image import ImageCodec, load_codec
from swirl_lightning.codecs.text import CodecCallable, TextCodec, known_stops

__all__ = [
    "ChoiceConstraint",
    "Codec",
    "CodecCallable",
    "ConstraintSpec",
    "GrammarConstraint",
    "ImageCodec",
    "RangeConstraint",
    "RegexConstraint",
    "TextCodec",
    "TokenConstraint",
    "known_stops",
    "load_codec",
    "mask_for",
]
