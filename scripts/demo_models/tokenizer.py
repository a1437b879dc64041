"""The tokenizer: SentencePiece BPE whose words never join with spaces, so that a name is the same tokens everywhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from demo_models.tasks import ANSWER, TASK, VERDICT

VOCABULARY = 1536
# How often a word that should become one token is shown, beside what the texts say.
_SEED_COUNT = 200
SPACE = "\u2581"

# Whitespace is joined to itself and to YAML's dash only. Every piece is the concatenation of two that stand before
# it, which is all that BPE can merge.
_JOINED = tuple(
    text.replace(" ", SPACE)
    for text in ("  ", "    ", "\n  ", "\n    ", "\n      ", "- ", "\n    - ", "\n      - ", ": ", ":\n", "\n\n")
) + tuple(
    text.replace(" ", SPACE)
    for text in (
        ":\n    ",
        ":\n    - ",
        ":\n      ",
        ":\n      - ",
        ". ",
        ", ",
        " `",
        "`, ",
        ":\n        ",
        "\n        ",
    )
)

# Options of commands, joined after all of those.
_DASHES = ("--", f"{SPACE}--", f"{SPACE}-")


def train(texts: Iterable[str], *, seed_words: Iterable[str] = ()) -> bytes:
    """The bytes of a tokenizer.model.

    The trainer sees single words; the pieces of whitespace are added to what it learned. Identity normalization, no
    dummy prefix and no removed spaces: every text comes back byte for byte.
    """
    found = [word for text in texts for word in re.findall(r"[A-Za-z]+|[0-9]|[^A-Za-z0-9\s]", text)]
    found += [word for word in seed_words for _ in range(_SEED_COUNT)]
    blob = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(found),
        model_writer=blob,
        model_type="bpe",
        vocab_size=VOCABULARY - len(_JOINED) - len(_DASHES) - 2,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        user_defined_symbols=[TASK, ANSWER, VERDICT],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return _with_whitespace(blob.getvalue())


def _with_whitespace(model: bytes) -> bytes:
    parsed = proto.ModelProto.FromString(model)
    known = {piece.piece for piece in parsed.pieces}
    normal = proto.ModelProto.SentencePiece.Type.NORMAL
    for character in ("\n", SPACE):
        if character not in known:
            parsed.pieces.add(piece=character, score=-10000.0, type=normal)
    # Better scores than any word: whitespace is joined first.
    for rank, text in enumerate(sorted(_JOINED, key=len)):
        parsed.pieces.add(piece=text, score=float(len(_JOINED) - rank), type=normal)
    for rank, text in enumerate(_DASHES):
        parsed.pieces.add(piece=text, score=0.9 - rank / 10, type=normal)
    return bytes(parsed.SerializeToString())


def load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer of a file's bytes."""
    return sentencepiece.SentencePieceProcessor(model_proto=model)
