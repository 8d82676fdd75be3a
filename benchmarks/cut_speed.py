"""What a network that is cut smaller is sooner by, beside what it has less of.

    python benchmarks/cut_speed.py --channels 0.5

A Llama-style decoder with random weights (`model/llama_124m`) and what is left of it read a prompt
and write behind it, batch 1, in turns; medians count. The ideal of reading is how many times fewer
operations it takes, that of writing how many times fewer bytes a step reads.
"""

import argparse
import copy
import statistics
import time

import torch
import yaml
from compressed_speed import ROOM, Ours
from decode_speed import REST, seconds

from gpt4o_lit import configs
from gpt4o_lit.compression import Cut, choose, cut_, measure_importance
from gpt4o_lit.evaluation.bench import PRECISIONS
from gpt4o_lit.model import Transformer, TransformerConfig, training_flops
from gpt4o_lit.model.quantized import weight_bytes
from gpt4o_lit.strategies.allocator import keep_freed_memory


def smaller(network: Transformer, cut: Cut) -> Transformer:
    """What is left of a network."""
    left, config = copy.deepcopy(network), network.config
    tokens = torch.randint(config.vocab_size or 0, (1, 64))
    scores = measure_importance(left, [lambda: left(tokens).float().mean()], "activation")
    cut_(left, choose(scores, config, config, cut))
    return left


@torch.inference_mode()
def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="model/llama_124m", help="a packaged size")
    for name in ("heads", "channels", "width", "blocks"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="share that is cut")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--length", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--new_tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    if not 0 < args.new_tokens <= ROOM:
        parser.error(f"--new_tokens must be 1 to {ROOM}")
    cut = Cut(heads=args.heads, channels=args.channels, width=args.width, blocks=args.blocks)
    keep_freed_memory()
    values = yaml.safe_load(configs.find(args.network).read_text(encoding="utf-8"))
    torch.manual_seed(0)
    whole = Transformer(TransformerConfig.from_dict(values)).eval().to(PRECISIONS[args.precision])
    networks = {"whole": whole, "cut": smaller(whole, cut)}
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    flops = {
        name: training_flops(net.config, target=args.length, asked=1)
        for name, net in networks.items()
    }
    read_bytes = {name: weight_bytes(net) for name, net in networks.items()}
    ideal = {
        "reading": flops["whole"] / flops["cut"],
        "writing": read_bytes["whole"] / read_bytes["cut"],
    }
    print(
        f"{args.network}, {args.precision}: {sizes['cut'] / sizes['whole']:.3f} of the parameters"
    )
    ids = torch.randint(whole.config.vocab_size or 0, (args.length,)).tolist()
    for compiled in (False, True):
        who = {name: Ours(net, compiled) for name, net in networks.items()}
        times: dict[str, dict[str, list[float]]] = {"reading": {}, "writing": {}}
        for turn in range(-1, args.rounds):  # the first compiles and warms up
            for name, ours in who.items():
                time.sleep(REST)
                taken = seconds(lambda ours=ours: ours.read(ids))
                written = seconds(lambda ours=ours: [ours.write(i) for i in ids[: args.new_tokens]])
                if turn >= 0:
                    times["reading"].setdefault(name, []).append(taken)
                    times["writing"].setdefault(name, []).append(written)
        for what, found in times.items():
            medians = {name: statistics.median(values) for name, values in found.items()}
            gain = medians["whole"] / medians["cut"]
            count = args.length if what == "reading" else args.new_tokens
            how = "compiled" if compiled else "eager"
            print(
                f"{what}, {how}: {count / medians['whole']:,.1f} to "
                f"{count / medians['cut']:,.1f} tokens/s, {gain:.2f}x of {ideal[what]:.2f}x ideal "
                f"({gain / ideal[what]:.0%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
