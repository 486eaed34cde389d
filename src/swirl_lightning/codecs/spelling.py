"""Texts as token ids that never are special tokens, whatever the tokenizer does with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase


class Speller:
    """Encodes users' texts: what looks like a special token there is spelt out with ordinary ones.

    Fast and slow tokenizers can leave out their search for special tokens. That is not enough where one is a word of the
    vocabulary itself (``</s>`` of a Unigram model), or where a marker of the chat template is an added token that does not
    count as special. Those are put together from smaller tokens that read back alike.

    Args:
        tokenizer: any.
        stop_ids: tokens that end a completion, special or not.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> None:
        self.tokenizer, self.unknown = tokenizer, tokenizer.unk_token_id
        added = tokenizer.added_tokens_decoder
        template = str(tokenizer.chat_template or "")
        marks = {i for i, token in added.items() if token.special or (token.content.strip() and token.content in template)}
        self._special = (marks | {*tokenizer.all_special_ids, *stop_ids}) - {self.unknown}
        self._stops = set(stop_ids)
        self._spelt: dict[int, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, none of them special as long as there is another way to spell it."""
        ids = self._plain(text)
        if self._special.isdisjoint(ids):
            return ids
        return [token for i in ids for token in (self._spell(i) if i in self._special else [i])]

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _spell(self, special: int) -> list[int]:
        if special not in self._spelt:
            self._spelt[special] = self._find(special)
        return self._spelt[special]

    def _find(self, special: int) -> list[int]:
        """Ordinary ids that read back as a special token's text, or nearly so.

        A tokenizer of whole words has none: then a stop token's text is an unknown word like any other.
        """
        content = str(self.tokenizer.decode([special], skip_special_tokens=False))
        ways = [way for way in self._ways(content) if way and self._special.isdisjoint(way) and self.unknown not in way]
        for way in ways:
            if self.tokenizer.decode(way, skip_special_tokens=False, clean_up_tokenization_spaces=False) == content:
                return way
        if ways:
            return ways[0]
        if special not in self._stops:
            return [special]
        if self.unknown is None:
            raise ValueError(
                f"a text holds {content!r}, which tokenizer {self.tokenizer.name_or_path!r} can only spell as the token that "
                "ends a completion: replace it in the data, or give a tokenizer with another eos_token"
            )
        return [int(self.unknown)]

    def _ways(self, content: str) -> Iterator[list[int]]:
        """Spellings: in two halves, then from the vocabulary's pieces, the longest that fits first, or bytes."""
        for cut in range(1, len(content)):
            yield self._plain(content[:cut]) + self._plain(content[cut:])
        pieces = self.tokenizer.get_vocab()
        ids: list[int] = []
        rest = content
        while rest:
            ends = range(len(rest), 0, -1)
            end = next((n for n in ends if pieces.get(rest[:n], self.unknown) not in (*self._special, self.unknown)), None)
            if end is None:
                end, codes = 1, [pieces.get(f"<0x{byte:02X}>") for byte in rest[0].encode()]
                if None in codes:
                    return
                ids += [code for code in codes if code is not None]
            else:
                ids.append(pieces[rest[:end]])
            rest = rest[end:]
        yield ids
