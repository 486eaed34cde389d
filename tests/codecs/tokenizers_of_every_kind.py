"""A small tokenizer of every kind, trained here: what its text comes back as differs from kind to kind."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

TEXTS = [
    "State: the agent turns left </s> and goes <|im_end|> on",
    "Turn Left now",
    "don't stop, it's 1 2 3!",
    "a b c d e f g h x n y < > / s | _ im end [ ] S E P",
] * 4
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def _wrapped(tokenizer, **special):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(SPECIAL | special))


def unigram():
    """As T5, Gemma and XLM-R: ``</s>`` is a piece of the vocabulary, texts are NFKC."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = list(SPECIAL.values())
    tokenizer.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>"))
    return _wrapped(tokenizer)


def metaspace_bpe():
    """As Llama 2: pieces with spaces, bytes for what no piece spells."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    special = [*SPECIAL.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    wrapped = _wrapped(tokenizer)
    wrapped.add_tokens(["<|im_end|>"])  # a marker that does not count as special, as in some finetunes
    wrapped.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    return wrapped


def wordpiece():
    """As BERT, uncased: no accents, no line breaks, a space around punctuation."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=list(special.values()))
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _wrapped(tokenizer, **special)


def byte_level(prefix=False, normalizer=None):
    """As GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>", "<|im_end|>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet))
    return _wrapped(tokenizer, unk_token=None)


def with_added_stop():
    """A stop token that was added later and does not count as special, and eats the spaces before it."""
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|end of turn|>", special=False, normalized=False)])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|end of turn|>{% endfor %}"
    return tokenizer


def words():
    """Whole words only."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=list(SPECIAL.values())))
    return _wrapped(tokenizer)


def slow_wordpiece(folder):
    """In Python, uncased, and it never splits its special tokens."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!'[]<>|_/:"]
    pieces += [f"##{piece}" for piece in pieces[4:]] + ["turn", "left", "sep"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return BertTokenizerLegacy(str(folder / "vocab.txt"), eos_token="[SEP]", bos_token="[CLS]")


def slow_bytes(folder):
    """In Python, a byte a token."""
    return ByT5Tokenizer()


KINDS = {
    "unigram": unigram,
    "metaspace_bpe": metaspace_bpe,
    "wordpiece": wordpiece,
    "byte_level": byte_level,
    "prefix_space": lambda: byte_level(prefix=True),
    "nfkc": lambda: byte_level(normalizer=normalizers.NFKC()),
    "lowercase": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "added_stop": with_added_stop,
    "words": words,
}
SLOW = {"slow_wordpiece": slow_wordpiece, "slow_bytes": slow_bytes}
