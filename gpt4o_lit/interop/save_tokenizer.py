"""Writes a tokenizer as the files that Hugging Face's AutoTokenizer opens."""

import importlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt4o_lit.tokenizer import ByteTokenizer, FastTokenizer, MarianTokenizer, Tokenizer
from gpt4o_lit.tokenizer.sentence_piece import SPACE, SentencePieceTokenizer
from gpt4o_lit.tokenizer.tokenizer import EOS, PAD, UNK

# The numbers of kinds of pieces and models in SentencePiece's own file format.
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
UNIGRAM, WORD = 1, 3
MEANINGS = ("pad", "bos", "eos", "unk", "mask")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def save_tokenizer(
    tokenizer: Tokenizer, directory: Path | str, *, max_seq_len: int, add_bos: bool = False
) -> None:
    """Write tokenizer.json and tokenizer_config.json, with a template of chats; of a Marian
    tokenizer its own three files.

    Text becomes the same ids, but for the names of special pieces: there they become those pieces,
    here they are text. Of two orders of the same pieces, which are equally likely to a unigram
    model, the libraries may choose each its own: they add up in float32 and in float64.

    Raises:
        ValueError: the library `tokenizers` is not installed, or the tokenizer is of another kind.
    """
    directory = Path(directory)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    directory.mkdir(parents=True, exist_ok=True)
    model = None
    if isinstance(tokenizer, MarianTokenizer):
        tokenizer.save_files(directory)
        settings["tokenizer_class"] = "MarianTokenizer"
        own = {"pad": PAD, "eos": EOS, "unk": UNK}
    elif isinstance(tokenizer, FastTokenizer):  # as it was; what we append is in no embedding
        model = tokenizer.model
        own = {name: piece for name, piece in asdict(tokenizer.names).items() if piece is not None}
    else:
        fast = convert(tokenizer)
        if add_bos:
            _open_with(fast, tokenizer.piece(tokenizer.bos_id), tokenizer.bos_id)
        model = fast.to_str(pretty=True)
        ids = {name: getattr(tokenizer, f"{name}_id") for name in MEANINGS}
        own = {name: tokenizer.piece(id) for name, id in ids.items() if id is not None}
        special = [tokenizer.piece(id) for id in tokenizer.special_ids]
        settings |= {
            "additional_special_tokens": [piece for piece in special if piece not in own.values()],
            "chat_template": CHAT_TEMPLATE,
        }
    settings |= {f"{name}_token": piece for name, piece in own.items()}
    if model is not None:
        (directory / "tokenizer.json").write_text(model, encoding="utf-8")
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _open_with(fast: Any, bos: str, id: int) -> None:
    """Let each text start with bos."""
    from tokenizers.processors import TemplateProcessing

    fast.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, id)]
    )


def convert(tokenizer: Tokenizer) -> Any:
    """The same tokenizer as an object of the library `tokenizers`."""
    try:
        import tokenizers

        # Written by a compiler of protocol buffers: no type checker sees what is in it.
        formats: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a tokenizer for Hugging Face needs {error.name}; pip install 'gpt4o-lit[hf]'"
        ) from error
    if isinstance(tokenizer, ByteTokenizer):
        vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
        fast = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], byte_fallback=True))
        fast.decoder = _decoder(tokenizers, has_prefix=False)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        proto = formats.ModelProto.FromString(tokenizer.model)
        fast = _sentence_piece(tokenizers, proto, tokenizer)
    else:
        raise ValueError(f"a {type(tokenizer).__name__} cannot be written for Hugging Face")
    special = [tokenizer.piece(id) for id in tokenizer.special_ids]
    fast.add_special_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in special])
    for piece, id in zip(special, tokenizer.special_ids, strict=True):
        assert fast.token_to_id(piece) == id, (piece, id, fast.token_to_id(piece))
    return fast


def _sentence_piece(library: Any, proto: Any, tokenizer: SentencePieceTokenizer) -> Any:
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    settings, bytes_stand_in = proto.normalizer_spec, proto.trainer_spec.byte_fallback
    symbols = [piece.piece for piece in proto.pieces if piece.type == USER_DEFINED]
    if proto.trainer_spec.model_type == UNIGRAM:
        model = library.models.Unigram(pieces, tokenizer.unk_id, byte_fallback=bytes_stand_in)
    elif proto.trainer_spec.model_type == WORD:
        raise ValueError(
            "a tokenizer of whole words cannot be written for Hugging Face, which has no piece for "
            "several unknown words in a row; train with model_type unigram or bpe to export it"
        )
    else:
        model = library.models.BPE(
            {piece: id for id, (piece, _) in enumerate(pieces)},
            _merges(proto),
            unk_token=tokenizer.piece(tokenizer.unk_id or 0),
            fuse_unk=True,
            byte_fallback=bytes_stand_in,
            ignore_merges=bool(symbols),  # so that a symbol becomes its piece
        )
    fast = library.Tokenizer(model)
    Replace, Regex = library.normalizers.Replace, library.Regex
    steps = []
    if settings.precompiled_charsmap:
        steps.append(library.normalizers.Precompiled(settings.precompiled_charsmap))
    if settings.remove_extra_whitespaces:
        steps += [Replace(Regex(r"\A +| +\z"), ""), Replace(Regex(" {2,}"), " ")]
    steps.append(Replace(" ", SPACE))
    if settings.add_dummy_prefix:
        steps.append(Replace(Regex(r"\A(?=.)"), SPACE))
    fast.normalizer = library.normalizers.Sequence(steps)
    if settings.precompiled_charsmap and not settings.add_dummy_prefix:
        # SentencePiece leaves symbols as they are; these are taken out before the rules apply.
        plain = [symbol for symbol in symbols if SPACE not in symbol]
        fast.add_tokens([library.AddedToken(symbol, normalized=False) for symbol in plain])
    if symbols:
        longest_first = sorted(symbols, key=len, reverse=True)
        pattern = Regex("|".join(re.escape(symbol) for symbol in longest_first))
        fast.pre_tokenizer = library.pre_tokenizers.Split(pattern, behavior="isolated")
    fast.decoder = _decoder(library, has_prefix=settings.add_dummy_prefix)
    return fast


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, the pairs of the likelier ones first."""
    normal = {
        piece.piece: (-piece.score, id)
        for id, piece in enumerate(proto.pieces)
        if piece.type == NORMAL
    }
    ranked = [
        (rank, piece[:cut], piece[cut:])
        for piece, rank in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    return [(left, right) for _, left, right in sorted(ranked)]


def _decoder(library: Any, *, has_prefix: bool) -> Any:
    decoders = library.decoders
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if has_prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    return decoders.Sequence(steps)
