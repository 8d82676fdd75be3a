"""`gpt4o-lit export RUN DIR`: a run as others open it."""

import argparse
import sys
from pathlib import Path

from gpt4o_lit.commands.run_flags import DTYPES
from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.interop.export import (
    Compared,
    MismatchError,
    export_compressed_tensors,
    export_hugging_face,
    export_program,
)
from gpt4o_lit.interop.gguf import export_gguf
from gpt4o_lit.interop.onnx import export_onnx
from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.parse_errors import OneLineParser

MB = 10**6
GGUF_FORMATS = {
    "q8_0": WeightFormat(bits=8, group_size=32),
    "q4_0": WeightFormat(bits=4, group_size=32),
}
FLAGS = {
    "family": ("hf", "compressed-tensors"),
    "dtype": ("hf", "compressed-tensors", "gguf"),
    "max_shard_mb": ("hf",),
}
EXAMPLE = """examples:
  gpt4o-lit export runs/quickstart/TIME exported/quickstart
  gpt4o-lit export runs/quickstart/TIME exported/small --dtype bfloat16 --max_shard_mb 500
  gpt4o-lit export runs/quickstart/TIME exported/gguf --format gguf --dtype float16
  gpt4o-lit export runs/quickstart/TIME exported/small --format gguf --dtype q4_0
  gpt4o-lit export small exported/vllm --format compressed-tensors
  gpt4o-lit export runs/quickstart/TIME exported/graph --format onnx
  gpt4o-lit export runs/quickstart/TIME exported/program --format torch"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "export",
        "Write a run in a form that others open, open it as they do, and compare: "
        "exit code 1 where the logits differ.",
        epilog=EXAMPLE,
    )
    parser.add_argument("run", metavar="RUN", help="the directory that `fit` made")
    parser.add_argument("directory", metavar="DIR", help="a new directory, or an empty one")
    parser.add_argument(
        "--format",
        choices=("hf", "compressed-tensors", "gguf", "onnx", "torch"),
        default="hf",
        help="hf: for AutoModel and AutoTokenizer of transformers; compressed-tensors: a quantized "
        "run for transformers and vLLM; gguf: for llama.cpp; "
        "onnx: graphs with a cache for ONNX Runtime; torch: a torch.export program",
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--family", help="model_type of hf, where more than one would do")
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, *GGUF_FORMATS),
        help="of the weights of hf and gguf (gguf alone: q8_0, q4_0); default: the run's",
    )
    parser.add_argument(
        "--max_shard_mb", type=int, default=5000, help="largest file of weights of hf, in MB"
    )
    return parser


def main(argv: list[str]) -> int:
    """Export and say how near it comes."""
    parser = build_parser()
    args = parser.parse_args(argv)
    directory = Path(args.directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} is not empty; give a new directory")
    for name, formats in FLAGS.items():
        if args.format not in formats and getattr(args, name) != parser.get_default(name):
            raise ValueError(f"--{name} is for --format {' or '.join(formats)}; leave it out")
    if args.max_shard_mb < 1:
        raise ValueError(f"max_shard_mb ({args.max_shard_mb}) must be at least 1; set it to 5000")
    if args.dtype in GGUF_FORMATS and args.format != "gguf":
        raise ValueError(f"--dtype {args.dtype} is for --format gguf; leave it out")
    run = open_run(args.run, args.checkpoint)
    if args.dtype in GGUF_FORMATS:
        blocks = Formats(format=GGUF_FORMATS[args.dtype]).of(run.transformer)
        round_(run.transformer, blocks)
    try:
        compared = _export(run, directory, args)
    except MismatchError as error:
        print(f"gpt4o-lit export: {error}", file=sys.stderr)
        return 1
    for path in sorted(directory.iterdir()):
        print(f"{path.stat().st_size:>14,} bytes  {path}")
    for each in compared:
        print(
            f"opened by {each.by}: logits differ by at most {each.difference:.1e} "
            f"(the largest is {each.largest:.1f})"
        )
    if not all(each.is_equal for each in compared):
        print(f"gpt4o-lit export: {directory} does not compute what the run does", file=sys.stderr)
        return 1
    return 0


def _export(run: OpenedRun, directory: Path, args: argparse.Namespace) -> list[Compared]:
    if args.format == "hf":
        return [
            export_hugging_face(
                run,
                directory,
                family=args.family,
                dtype=DTYPES.get(args.dtype),
                max_shard_bytes=args.max_shard_mb * MB,
            )
        ]
    if args.format == "compressed-tensors":
        dtype = DTYPES.get(args.dtype)
        return export_compressed_tensors(run, directory, family=args.family, dtype=dtype)
    if args.format == "gguf":
        return export_gguf(run, directory, DTYPES.get(args.dtype))
    return [
        export_onnx(run, directory) if args.format == "onnx" else export_program(run, directory)
    ]
