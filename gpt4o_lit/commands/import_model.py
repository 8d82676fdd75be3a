"""`gpt4o-lit import SOURCE`: a Hugging Face model as a run."""

from gpt4o_lit.interop.import_run import find_model, import_hugging_face, own_pieces
from gpt4o_lit.parse_errors import OneLineParser

EXAMPLE = """examples:
  gpt4o-lit import models/gpt2
  gpt4o-lit import HuggingFaceTB/SmolLM2-135M --name smollm
  gpt4o-lit generate runs/smollm/TIME --prompt "Once upon a time" """


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "import",
        "Make a run of a model that Hugging Face's save_pretrained wrote: GPT-2, "
        "Llama, Mistral, Qwen2, Qwen3, SmolLM, BERT, T5, Marian. Weights are read from "
        "safetensors alone; nothing in the directory is ever run.",
        epilog=EXAMPLE,
    )
    parser.add_argument("source", metavar="DIR_OR_HUB_ID", help="a directory, or OWNER/NAME")
    parser.add_argument("--name", help="the run lies in runs/NAME/TIME; default: the model's name")
    parser.add_argument("--run_dir", help="a directory of your choice instead")
    return parser


def main(argv: list[str]) -> int:
    """Import and say what came in."""
    args = build_parser().parse_args(argv)
    source = find_model(args.source)
    name = args.name or args.source.rstrip("/").rsplit("/", 1)[-1]
    found = import_hugging_face(source, name, args.run_dir)
    kind = "-".join(part for part in ("encoder", "decoder") if getattr(found.config, part))
    print(
        f"{found.run.path}: {kind}, {found.num_parameters / 1e6:,.1f}M parameters in "
        f"{str(found.dtype).removeprefix('torch.')}, {own_pieces(found.tokenizer):,} pieces, "
        f"context {found.config.max_seq_len:,}"
    )
    print(f'  gpt4o-lit generate {found.run.path} --prompt "..."')
    return 0
