"""Exports a decoder and its tokenizer to one GGUF file, as llama.cpp reads it."""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.interop.export import Compared, MismatchError, compare, rounded, sample_inputs
from gpt4o_lit.interop.families import FAMILIES
from gpt4o_lit.interop.gguf_blocks import KINDS, blocks, require_blocks
from gpt4o_lit.interop.llama_cpp import LlamaCpp
from gpt4o_lit.interop.names import NAMES
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.interop.save import choose_family, losses
from gpt4o_lit.interop.save_tokenizer import CHAT_TEMPLATE, UNIGRAM
from gpt4o_lit.interop.tensors import Rule, rules
from gpt4o_lit.model import StackConfig, Transformer, TransformerConfig
from gpt4o_lit.model.quantized import QuantizedWeight, formats_of, restored_state
from gpt4o_lit.tokenizer import ByteTokenizer, Tokenizer
from gpt4o_lit.tokenizer.hugging_face import byte_signs
from gpt4o_lit.tokenizer.sentence_piece import SPACE, SentencePieceTokenizer
from gpt4o_lit.tokenizer.tokenizer import BOS, EOS

# R rows, I inputs, N heads, H head_dim

FILE = "model.gguf"
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
# Cut into tokens by llama.cpp and by us.
TEXTS = ("the cat sat", "  two\n\n\tlines: f(x) = 1.5", "naïve, 我爱吃苹果 🙂")
# GGUF's own numbers for kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def export_gguf(
    run: OpenedRun, directory: Path, dtype: torch.dtype | None = None
) -> list[Compared]:
    """Write the file, open it by transformers' own reader of GGUF, and compare the logits.

    Where llama-cpp-python is installed it opens the file, too: it must cut texts into the same
    tokens and write the same ones, but for those that its rounding makes as likely. Vectors are
    kept in float32, matrices in `dtype` (default: float32), those of whole numbers as Q8_0 or Q4_0.

    Raises:
        MismatchError: llama.cpp cuts a text into other tokens.
        ValueError: before anything is written, naming what GGUF or llama.cpp cannot carry; or gguf
            or transformers is not installed.
    """
    transformers = _library("transformers")
    family = write_gguf(run, directory, dtype)
    settings = FAMILIES[family].write(run.transformer.config)
    model = getattr(transformers, FAMILIES[family].architecture).from_pretrained(
        directory,
        gguf_file=FILE,
        config=transformers.AutoConfig.for_model(**settings),
        dtype=torch.float32,
    )

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        answer: Tensor = model(inputs["tokens_BT"]).logits
        return answer

    ours = rounded(run.transformer, dtype, vectors=False)
    compared = [compare(ours, logits, f"transformers {transformers.__version__}")]
    if importlib.util.find_spec("llama_cpp") is not None:
        compared.append(_by_llama_cpp(run, ours, directory / FILE, dtype))
    return compared


@torch.no_grad()
def _by_llama_cpp(
    run: OpenedRun, net: Transformer, path: Path, dtype: torch.dtype | None
) -> Compared:
    """How far our likeliest token is ahead of the one that llama.cpp writes, at most."""
    theirs = LlamaCpp(path, min(net.config.max_seq_len, 512))
    for text in TEXTS:
        ids = run.tokenizer.encode(text)
        if max(ids) >= (net.config.vocab_size or 0):
            continue  # llama.cpp aborts where a piece that it needs is missing
        found = theirs.encode(text)
        if sorted(found) != sorted(ids):  # another order may be as likely to a unigram model
            raise MismatchError(
                f"llama.cpp cuts {text!r} into {found}, the run into {ids}; export with --format hf"
            )
    given = sample_inputs(net, 1)["tokens_BT"][0, :16].tolist()
    written = theirs.greedy(given, 16)
    logits_TV = net(torch.tensor([given + written[:-1]]))[0, len(given) - 1 :]
    chosen_T = logits_TV.gather(1, torch.tensor(written)[:, None]).squeeze(1)
    difference = float((logits_TV.amax(dim=1) - chosen_T).max())
    # llama.cpp rounds what it multiplies to the dtype of the weights, and GELU to float16.
    coarse = dtype == torch.bfloat16 or formats_of(run.transformer)
    tolerance = 0.03 if coarse else 0.004
    return Compared(difference, float(logits_TV.abs().max()), theirs.name, tolerance)


def write_gguf(run: OpenedRun, directory: Path, dtype: torch.dtype | None = None) -> str:
    """Write the file and nothing more; the family as which it is written.

    Raises:
        ValueError: before anything is written, as in `export_gguf`.
    """
    library = _library("gguf")
    config = run.transformer.config
    family = _family(config)
    kind = _tokenizer_kind(run.tokenizer)
    weights = {
        name: part
        for name, part in run.transformer.named_modules()
        if isinstance(part, QuantizedWeight)
    }
    for name, weight in weights.items():
        require_blocks(name.removesuffix(".weight"), weight)
    directory.mkdir(parents=True, exist_ok=True)
    writer = library.GGUFWriter(None, ARCHITECTURES[family])
    _write_settings(writer, run, family)
    _write_tokenizer(writer, run, kind)
    architecture = {name: arch for arch, name in library.MODEL_ARCH_NAMES.items()}[family]
    assert config.decoder is not None
    names = library.get_tensor_name_map(architecture, config.decoder.num_layers)
    state = restored_state(run.transformer)
    for rule in rules(config, NAMES[family]):
        quantized = weights.get(rule.ours)

        def parts(tensor: Tensor, rule: Rule = rule) -> Iterator[tuple[str, Tensor]]:
            for theirs, part in rule.write(tensor).items():
                part = part.T if rule.transposed else part
                if family == "llama" and rule.ours.endswith("attention.qkv.weight"):
                    assert config.decoder is not None
                    part = _turned(part, theirs, config.decoder)
                name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
                assert name is not None, theirs
                yield name, part

        if quantized is None:
            for name, part in parts(state[rule.ours]):
                writer.add_tensor(name, *_stored(library, part, dtype))
        else:
            steps = quantized.format.spread(quantized.scales, quantized.shape[1])
            for (name, part), (_, own) in zip(parts(state[rule.ours]), parts(steps), strict=True):
                kind = library.GGMLQuantizationType[KINDS[quantized.format.bits]]
                array = blocks(part, own, quantized.format.bits)
                writer.add_tensor(name, array, None, kind)
    partial = directory / f"{FILE}.partial"
    writer.write_header_to_file(partial)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(directory / FILE)
    return family


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"GGUF needs {error.name}; pip install 'gpt4o-lit[gguf]'") from error


def _family(config: TransformerConfig) -> str:
    """The family among llama.cpp's that computes what the config says."""
    if config.decoder is None or config.encoder is not None:
        raise ValueError("gguf carries decoders alone; export this network with --format hf")
    if config.decoder.position.scaling != "none":
        raise ValueError(
            f"gguf: position.scaling ({config.decoder.position.scaling}) is not carried; export "
            "with --format hf"
        )
    found = [name for name in ARCHITECTURES if not losses(config, FAMILIES[name])]
    if not found:
        # The nearest of all families is named; of those beside ours nothing is lost but the format.
        nearest = choose_family(config).model_type
        raise ValueError(
            f"gguf carries {', '.join(ARCHITECTURES)}, but this network is a {nearest}; export "
            "with --format hf"
        )
    return found[0]


def _write_settings(writer: Any, run: OpenedRun, family: str) -> None:
    config = run.transformer.config
    stack = config.decoder
    assert stack is not None
    writer.add_name(run.path.name)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(stack.dim)
    writer.add_block_count(stack.num_layers)
    writer.add_feed_forward_length(stack.ffn_dim)
    writer.add_head_count(stack.attention.num_heads)
    writer.add_head_count_kv(stack.attention.kv_heads)
    writer.add_vocab_size(config.vocab_size or 0)
    if family == "gpt2":
        writer.add_layer_norm_eps(stack.norm.eps)
        return
    writer.add_layer_norm_rms_eps(stack.norm.eps)
    writer.add_rope_freq_base(stack.position.theta)
    writer.add_rope_dimension_count(stack.head_dim)
    writer.add_key_length(stack.head_dim)
    writer.add_value_length(stack.head_dim)


def _tokenizer_kind(tokenizer: Tokenizer) -> str:
    """What llama.cpp calls the way in which the tokenizer works."""
    if isinstance(tokenizer, ByteTokenizer):
        return "gpt2"  # whose pieces are of bytes; without merges each is one
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise ValueError(
            f"gguf: a {type(tokenizer).__name__} is not carried; export with --format hf and "
            "convert with llama.cpp's own script"
        )
    proto = _proto(tokenizer)
    settings, has_bytes = proto.normalizer_spec, proto.trainer_spec.byte_fallback
    is_unigram = proto.trainer_spec.model_type == UNIGRAM
    if is_unigram and not has_bytes:
        return "t5"
    # "llama" merges pairs; "plamo2" finds the likeliest pieces. Both leave what text says as it is.
    lost = {
        "no bytes that stand in for unknown signs": not has_bytes,
        "a normalisation of text": bool(settings.precompiled_charsmap),
        "dropped spaces": settings.remove_extra_whitespaces,
        "a space in front of a text": is_unigram and settings.add_dummy_prefix,
    }
    if any(lost.values()):
        kind = "unigram" if is_unigram else "BPE or character"
        raise ValueError(
            f"gguf: llama.cpp has no {kind} tokenizer with "
            f"{' and '.join(name for name in lost if lost[name])}; export with --format hf"
        )
    return "plamo2" if is_unigram else "llama"


def _proto(tokenizer: SentencePieceTokenizer) -> Any:
    formats: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    return formats.ModelProto.FromString(tokenizer.model)


def _write_tokenizer(writer: Any, run: OpenedRun, kind: str) -> None:
    tokenizer, size = run.tokenizer, run.transformer.config.vocab_size or 0
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    special = set(tokenizer.special_ids)
    kinds = [CONTROL if id in special else NORMAL for id in range(len(pieces))]
    scores = [0.0] * len(pieces)
    prefix = False
    if isinstance(tokenizer, SentencePieceTokenizer):
        proto = _proto(tokenizer)
        prefix = bool(proto.normalizer_spec.add_dummy_prefix)
        for id, piece in enumerate(proto.pieces):
            scores[id] = piece.score
            if id not in special or piece.type in (UNKNOWN, BYTE):
                kinds[id] = piece.type
        writer.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
        if proto.normalizer_spec.precompiled_charsmap:
            writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    else:
        signs = byte_signs()
        pieces[:256] = sorted(signs, key=signs.__getitem__)  # by byte
    for id in range(len(pieces), size):  # rows of a vocabulary that was rounded up
        pieces.append(f"<unused_{id}>")
        kinds.append(CONTROL)
        scores.append(0.0)
    if kind == "plamo2":  # no text becomes a mark, and spaces are written as spaces
        scores = [
            -math.inf if of in (CONTROL, UNKNOWN) else score
            for of, score in zip(kinds, scores, strict=True)
        ]
        pieces = [piece.replace(SPACE, " ") for piece in pieces]
    elif kind == "gpt2":
        writer.add_token_merges([f"{BOS} {EOS}"])  # it wants one; these two never meet in a text
    else:
        pieces = [piece.replace(" ", SPACE) for piece in pieces]
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre("gpt-2" if kind == "gpt2" else "default")
    writer.add_token_list(pieces[:size])
    writer.add_token_scores(scores[:size])
    writer.add_token_types(kinds[:size])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.unk_id is not None:
        writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(run.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(prefix)
    writer.add_chat_template(CHAT_TEMPLATE)


def _turned(part_RI: Tensor, name: str, stack: StackConfig) -> Tensor:
    """Queries and keys with the two features of a pair side by side, as llama.cpp turns them."""
    if ".v_proj." in name:
        return part_RI
    pairs = part_RI.unflatten(0, (-1, 2, stack.head_dim // 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def _stored(library: Any, part: Tensor, dtype: torch.dtype | None) -> tuple[Any, ...]:
    """An array, and what GGUF calls its numbers."""
    types = library.GGMLQuantizationType
    part = part.detach().cpu().contiguous()
    if part.dim() < 2 or dtype in (None, torch.float32):
        return (part.float().numpy(),)
    if dtype == torch.float16:
        return (part.half().numpy(),)
    shape = part.shape
    array = part.bfloat16().view(torch.uint8).numpy().reshape(*shape[:-1], -1)
    return np.ascontiguousarray(array), None, types.BF16
