"""What verbs that use a run share: their flags, the run as these ask, how it is prompted."""

import argparse
import sys

import torch

from gpt4o_lit.generation import PromptFormat, SamplingConfig
from gpt4o_lit.interop.engines import FILES, Engine, open_engine
from gpt4o_lit.interop.run import OpenedRun, open_run

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Each flag is a field of SamplingConfig."""
    add = parser.add_argument
    add("--max_new_tokens", type=int, default=128, help="most tokens to write")
    add("--temperature", type=float, default=0.8, help="0: always the likeliest")
    add("--top_k", type=int, help="choose among the k likeliest, such as 50")
    add("--top_p", type=float, help="choose among the likeliest, such as 0.9")
    add("--min_p", type=float, help="at least this share of the likeliest")
    add("--repetition_penalty", type=float, default=1.0, help="1: none")
    add("--stop", nargs="*", default=[], help="stop before any of these strings")
    add("--seed", type=int, default=0, help="the same seed, the same text")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights; bfloat16 reads half")
    add("--int8_cache", action="store_true", help="keys and values in a quarter of the memory")
    add("--compile", action="store_true", help="for long texts: faster, after half a minute")
    add(
        "--engine",
        choices=FILES,
        help="write with this one in PyTorch's place, where it is installed and faster; what it "
        "reads is kept in RUN/engines",
    )


def opened_run(args: argparse.Namespace) -> OpenedRun:
    """The run that the flags name, its weights as they ask."""
    run = open_run(args.run, args.checkpoint)
    run.transformer.to(DTYPES[args.dtype])
    return run


def opened_engine(args: argparse.Namespace, run: OpenedRun) -> Engine | None:
    """The engine that the flags name, if any; what it would not heed is refused."""
    if args.engine is None:
        return None
    usual = argparse.ArgumentParser()
    add_sampling_flags(usual)
    for name in ("dtype", "int8_cache", "compile"):
        if getattr(args, name) != usual.get_default(name):
            raise ValueError(f"--{name} is PyTorch's; leave it or --engine out")
    directory = run.path / "engines" / args.engine
    return open_engine(
        args.engine, run, directory, told=lambda words: print(words, file=sys.stderr)
    )


def prompt_format_of(run: OpenedRun) -> PromptFormat:
    """How prompts are put before the network of a run."""
    return PromptFormat(
        add_bos=run.add_bos, bidirectional=run.bidirectional_prompt, add_eos=run.source_eos
    )


def sampling_config(args: argparse.Namespace, **others: object) -> SamplingConfig:
    """What the flags say, and what the verb itself sets."""
    names = SamplingConfig.__dataclass_fields__.keys() & vars(args).keys()
    values = {name: getattr(args, name) for name in names} | {"stop": tuple(args.stop)} | others
    return SamplingConfig(**values)
