"""`gpt4o-lit bench RUN|CONFIG`: how fast a network trains, reads and writes here."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from gpt4o_lit import configs
from gpt4o_lit.evaluation.bench import KINDS, PRECISIONS, Case, Measured, measure
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import TransformerConfig
from gpt4o_lit.model.count import count_parameters
from gpt4o_lit.model.quantized import formats_of
from gpt4o_lit.parse_errors import OneLineParser

Formats = dict[str, dict[str, Any]]
PIECES = 32_000  # where a config leaves vocab_size to a tokenizer
EXAMPLE = """examples:
  gpt4o-lit bench model/gpt2
  gpt4o-lit bench runs/quickstart/TIME --kinds decode --batch_size 1 8 --compile"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "bench",
        "Measure training, reading a prompt and writing, each in a process of its own: "
        "tokens/s, time, peak memory, share of the machine's FLOPs or bandwidth. A table, and the "
        "same as JSON in the last line. A compressed run reads and writes with its whole numbers.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add(
        "network", metavar="RUN|CONFIG", help="a run, a packaged size or experiment, or a YAML file"
    )
    add(
        "--kinds",
        nargs="+",
        choices=KINDS,
        help="what to measure; default: all that the network can do",
    )
    add("--batch_size", nargs="+", type=int, default=[1], help="rows at once")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add("--length", type=int, help="tokens of a row or prompt; default: the context, 512 at most")
    add(
        "--new_tokens", type=int, default=64, help="tokens that decode writes before it starts anew"
    )
    add("--compile", action="store_true", help="compile stacks (training), prompts and steps")
    add("--seconds", type=float, default=5.0, help="to measure each, besides warming up")
    return parser


def main(argv: list[str]) -> int:
    """Measure one after the other."""
    args = build_parser().parse_args(argv)
    config, formats = find_network(args.network)
    kinds = args.kinds or [kind for kind in KINDS if can_do(kind, config, formats)]
    for kind in kinds:
        if not can_do(kind, config, formats):
            what = "has whole numbers for weights" if kind == "training" else "writes no text"
            raise ValueError(f"{args.network} {what}; leave {kind} out of --kinds")
    longest = config.max_seq_len
    length = args.length or min(512, longest - args.new_tokens)
    if not 0 < length + args.new_tokens <= longest or min(args.batch_size) < 1:
        raise ValueError(
            f"length ({length}) and new_tokens ({args.new_tokens}) must be above 0 and fit into "
            f"max_seq_len ({longest}), and batch_size be at least 1; set --length to at most "
            f"{longest - args.new_tokens}"
        )
    parameters = count_parameters(config)["total"]
    print(f"{args.network}: {parameters / 1e6:,.1f}M parameters, {torch.get_num_threads()} threads")
    print(HEADER)
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        for precision in args.precision:
            for batch_size in args.batch_size:
                case = Case(
                    config=config.to_dict(), formats=formats, kind=kind, precision=precision,
                    batch_size=batch_size, length=length, new_tokens=args.new_tokens,
                    compiled=args.compile, seconds=args.seconds,
                )  # fmt: skip
                try:
                    measured = measure(case)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    continue
                print(line(measured), flush=True)
                rows.append(asdict(measured))
    print(json.dumps({"network": args.network, "parameters": parameters, "measured": rows}))
    return 0 if rows else 1


HEADER = (
    f"{'':<9} {'precision':>9} {'batch':>5} {'tokens/s':>12} {'ms':>10} {'memory':>10} "
    f"{'FLOPs':>6} {'bandwidth':>9}"
)


def line(row: Measured) -> str:
    """A row of the table."""
    shares = ["" if s is None else f"{s:.0%}" for s in (row.flops_share, row.bandwidth_share)]
    return (
        f"{row.kind:<9} {row.precision:>9} {row.batch_size:>5} {row.tokens_per_second:>12,.1f} "
        f"{row.milliseconds:>10,.1f} {row.peak_memory_bytes / 1e6:>7,.0f} MB {shares[0]:>6} "
        f"{shares[1]:>9}"
    )


def can_do(kind: str, config: TransformerConfig, formats: Formats) -> bool:
    """Whether the network can be measured so."""
    return {"training": not formats, "prefill": True, "decode": config.decoder is not None}[kind]


def find_network(name: str) -> tuple[TransformerConfig, Formats]:
    """A network and how its weights are stored, by a run or by a config that describes one."""
    if not (Path(name) / "config.yaml").is_file():
        return _described(name), {}
    network = open_run(name).transformer
    return network.config, {name: asdict(each) for name, each in formats_of(network).items()}


def _described(name: str) -> TransformerConfig:
    path = configs.find(name)
    values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("model", "init_args", "transformer"):
        values = values.get(key, values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or not {"encoder", "decoder"} & values.keys():
        raise ValueError(f"{path} describes no network; give a size, an experiment or a run")
    config = TransformerConfig.from_dict(values)
    return config if config.vocab_size else replace(config, vocab_size=PIECES)
