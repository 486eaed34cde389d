"""Visual worlds: an image is a run of tokens in the language model's vocabulary.

A state is ``<boi> code ... code <eoi>``, codes in reading order, their ids appended after the text vocabulary (as Liquid does:
8,192 codes from id 256,000). States that a model draws stay codes (a *token image*: exact, and no picture is made of it before
someone looks); :meth:`ImageCodec.render` makes a PNG of one.
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AddedToken, PreTrainedTokenizerBase
from typing_extensions import override

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.constraints import RangeConstraint
from swirl_lightning.codecs.image_cache import CodeCache, image_hash
from swirl_lightning.codecs.image_models import ImageModel, load_image_model
from swirl_lightning.codecs.image_pixels import pixels, to_png
from swirl_lightning.codecs.text import CODEC, TextCodec
from swirl_lightning.types import Role, State

IMAGE_MODEL = "image_model"  # folder of the image model, beside it
_MAGIC = b"\x00swirl-tokens\x01"
_IN_MEMORY = 1 << 18  # images whose codes are kept in memory


class ImageConstraint(TokenConstraint):
    """Exactly one image: begin, ``length`` codes, end of image, end of completion.

    Args:
        vocab_size: number of token ids.
        begin: id of ``<boi>``.
        codes: ids of the codes.
        end: id of ``<eoi>``.
        eos: id that ends a completion.
        length: codes of an image.
    """

    def __init__(self, vocab_size: int, begin: int, codes: range, end: int, eos: int, length: int) -> None:
        self.vocab_size, self.length = vocab_size, length
        self._masks = [self._of([begin]), self._of(codes), self._of([end]), self._of([eos])]

    def _of(self, ids: Sequence[int]) -> Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[ids[0] : ids[-1] + 1] = True
        return mask

    @property
    @override
    def by_length(self) -> bool:
        """Always true."""
        return True

    @override
    def key(self, generated: Sequence[int]) -> int:
        """Which of the four masks follows: it depends on the position only."""
        n = len(generated)
        return 0 if n == 0 else 1 if n <= self.length else 2 if n == self.length + 1 else 3

    @override
    def allowed(self, generated: Sequence[int]) -> Tensor:
        """Mask of the tokens that may stand at this position, bool [vocab_size]."""
        return self._masks[self.key(generated)]


class ImageCodec(TextCodec):
    """States are images, actions are text.

    Args:
        tokenizer: knows ``begin`` and ``end`` as single tokens.
        images: the image model.
        first_code: id of code 0; default: the first id after the tokenizer's. Liquid: 256000.
        begin: token before an image.
        end: token after an image.
        cache: codes on disk; None keeps them in memory only.
        **text_options: further arguments of ``TextCodec``.

    Raises:
        ValueError: if the markers are no tokens, or the codes overlap the text vocabulary.
    """

    def __init__(
        self,
        tokenizer: str | PreTrainedTokenizerBase,
        images: ImageModel,
        first_code: int | None = None,
        begin: str = "<boi>",
        end: str = "<eoi>",
        cache: CodeCache | None = None,
        **text_options: Any,
    ) -> None:
        super().__init__(tokenizer, **text_options)
        self.images, self.cache, self.begin, self.end = images, cache, begin, end
        self.first_code = len(self.tokenizer) if first_code is None else first_code
        if self.first_code < len(self.tokenizer):
            raise ValueError(
                f"first_code={self.first_code} overlaps the text vocabulary of {len(self.tokenizer)} tokens; "
                "image ids come after it"
            )
        self.begin_id, self.end_id = (self._marker(token) for token in (begin, end))
        self._known: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()

    def _marker(self, token: str) -> int:
        ids = self.encode_literal(token)
        if len(ids) != 1:
            raise ValueError(
                f"{token!r} is no single token of tokenizer {self.tokenizer.name_or_path!r}: make a model that speaks images "
                "with `swirl extend` or `swirl init --codec`"
            )
        return ids[0]

    @property
    def length(self) -> int:
        """Codes of an image."""
        return self.images.grid**2

    @property
    @override
    def vocab_size(self) -> int:
        """Number of token ids, image codes included."""
        return self.first_code + self.images.codes

    @override
    def constraint(self, role: Role) -> TokenConstraint:
        """The FWM emits one image of exact length, the IDM text."""
        if role is Role.FWM:
            codes = range(self.first_code, self.vocab_size)
            return ImageConstraint(self.vocab_size, self.begin_id, codes, self.end_id, self.eos_id, self.length)
        text = len(self.tokenizer)
        return RangeConstraint(self.vocab_size, 0, text, excluded_ids=(self.begin_id, self.end_id))

    # ------------------------------------------------------------------ states

    @override
    def encode_state(self, state: State) -> list[int]:
        """Token ids of an image, markers included.

        Raises:
            TypeError: if the state is text.
            ImageError: if the bytes are no readable image.
            ValueError: if it is a token image of another codec.
        """
        return [self.begin_id, *(self.first_code + code for code in self.codes(state)), self.end_id]

    @override
    def decode_state(self, ids: Sequence[int]) -> bytes:
        """The token image that ``ids`` spell; a trailing stop token is ignored.

        Raises:
            ValueError: if they are not exactly one image.
        """
        kept = list(ids[:-1] if len(ids) and ids[-1] in self.stop_ids else ids)
        codes = [token - self.first_code for token in kept[1:-1]]
        whole = len(codes) == self.length and kept[0] == self.begin_id and kept[-1] == self.end_id
        if not whole or not all(0 <= code < self.images.codes for code in codes):
            raise ValueError(
                f"{len(ids)} tokens do not spell one image of {self.length} codes: allow max_new_tokens="
                f"{self.length + 3} or more and leave the FWM's constraint to the codec"
            )
        return self.token_image(codes)

    def codes(self, state: State) -> tuple[int, ...]:
        """Codes of an image, from the cache where it was seen before."""
        if isinstance(state, str):
            raise TypeError("an image codec got a text state; text worlds need a model without codec.json")
        if state.startswith(_MAGIC):
            return self._unpack(state)
        name = image_hash(state)
        if name not in self._known:
            self.prepare([state])
        self._known.move_to_end(name)
        return self._known[name]

    @override
    def prepare(self, states: Iterable[State]) -> None:
        """Encodes many images at once, those that are not cached yet."""
        missing: dict[bytes, bytes] = {}
        for state in states:
            if isinstance(state, bytes) and not state.startswith(_MAGIC):
                missing.setdefault(image_hash(state), state)
            if len(missing) >= 1024:
                self._encode_missing(missing)
                missing = {}
        self._encode_missing(missing)

    def _encode_missing(self, images: dict[bytes, bytes]) -> None:
        names = [name for name in images if name not in self._known]
        stored = self.cache.get(names) if self.cache is not None else {}
        for name, packed in stored.items():
            self._remember(name, _from_bytes(packed))
        names = [name for name in names if name not in stored]
        if not names:
            return
        stack = np.stack([pixels(images[name], self.images.size) for name in names])  # [N, S, S, 3]
        codes = self.images.encode(torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous())  # [N, length]
        rows = [tuple(row) for row in codes.tolist()]
        if self.cache is not None:
            self.cache.put({name: _to_bytes(row) for name, row in zip(names, rows, strict=True)})
        for name, row in zip(names, rows, strict=True):
            self._remember(name, row)

    def _remember(self, name: bytes, codes: tuple[int, ...]) -> None:
        self._known[name] = codes
        if len(self._known) > _IN_MEMORY:
            self._known.popitem(last=False)

    def token_image(self, codes: Sequence[int]) -> bytes:
        """A state that holds codes rather than pixels."""
        return _MAGIC + bytes.fromhex(self.images.key) + _to_bytes(codes)

    def _unpack(self, state: bytes) -> tuple[int, ...]:
        key, packed = state[len(_MAGIC) : len(_MAGIC) + 8], state[len(_MAGIC) + 8 :]
        if key.hex() != self.images.key:
            raise ValueError(f"a token image of codec {key.hex()} cannot be read by codec {self.images.key}")
        return _from_bytes(packed)

    @override
    def canonical(self, state: State) -> State:
        """The image as its codes: two images are the same state when their codes are. Actions are text."""
        return super().canonical(state) if isinstance(state, str) else self.token_image(self.codes(state))

    @override
    def units(self, state: State) -> Sequence[Hashable]:
        """Codes: the cells of the image."""
        return self.codes(state)

    @override
    def render(self, state: State) -> bytes:
        """PNG bytes: of a token image what the decoder makes of it, of an image itself."""
        if isinstance(state, bytes) and not state.startswith(_MAGIC):
            return state
        image = self.images.decode(torch.tensor([self.codes(state)]))[0]  # [3, S, S]
        return to_png(image.permute(1, 2, 0).numpy())

    # ------------------------------------------------------------------ on disk

    @override
    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer, image model and ``codec.json``, which ``load_codec`` reads."""
        self.tokenizer.save_pretrained(str(folder))
        self.images.save(Path(folder) / IMAGE_MODEL)
        settings: dict[str, Any] = {
            "image_model": IMAGE_MODEL,
            "first_code": self.first_code,
            "codes": self.images.codes,
            "begin": self.begin,
            "end": self.end,
        }
        (Path(folder) / CODEC).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def image_codec(tokenizer: PreTrainedTokenizerBase, images: ImageModel, first_code: int | None = None) -> ImageCodec:
    """A codec for a tokenizer that need not know the markers yet: ``<boi>`` and ``<eoi>`` are added where they are missing."""
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<boi>", "<eoi>") if token not in known])
    return ImageCodec(tokenizer, images, first_code, cache=CodeCache(images.key))


def load_codec(folder: str | Path, **text_options: Any) -> TextCodec:
    """The codec of a model folder: images where it holds ``codec.json``, text otherwise (hub names too).

    Args:
        folder: with a tokenizer.
        **text_options: further arguments of ``TextCodec``.

    Raises:
        ValueError: if ``codec.json`` and the image model differ in their number of codes, the tokenizer does not fit, or the
            folder speaks by a codec of somebody's own.
    """
    file = Path(folder) / CODEC
    if not file.is_file():
        return TextCodec(str(folder), **text_options)
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "class_path" in settings:
        raise ValueError(
            f"{file}: the model speaks by {settings['class_path']}, a codec of somebody's own, and no code is run because a "
            "folder names it: name it as model.codec of swirl fit, or load the folder with it in Python"
        )
    images = load_image_model(Path(folder) / settings["image_model"])
    if images.codes != settings["codes"]:
        raise ValueError(
            f"{file}: the model was made for {settings['codes']} codes, but the image model in "
            f"{settings['image_model']!r} has {images.codes}: they do not belong together"
        )
    markers = (settings["begin"], settings["end"])
    return ImageCodec(str(folder), images, settings["first_code"], *markers, cache=CodeCache(images.key), **text_options)


def _to_bytes(codes: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(codes)}H", *codes)


def _from_bytes(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 2}H", packed)
