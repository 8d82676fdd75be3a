"""Tokens/s of writing with a draft and without, in alternation.

    gpt4o-lit fit --config quickstart --run_dir runs/large ...    # and a 4x smaller runs/draft
    python benchmarks/speculation_speed.py runs/large runs/draft --text data/held_out.txt

Both runs need the same tokenizer; the draft may be what `compress` made of a run. Prompts are the
first tokens of parts of a text that neither was trained on; a round writes behind each of them with
and without the draft, both compiled. Prints the median tokens/s, their ratio, and the share of
proposed tokens that were kept.
"""

import argparse
import statistics
from pathlib import Path

from gpt4o_lit.commands.generate import tokens_per_second
from gpt4o_lit.commands.run_flags import DTYPES
from gpt4o_lit.generation import Draft, SamplingConfig, decode, speculate
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import count_parameters


def prompts_of(text: str, count: int) -> list[str]:
    """As many places of the text, each with 200 signs from the start of a line on."""
    starts = [text.find("\n", len(text) * part // count) + 1 for part in range(count)]
    return [text[start : start + 200] for start in starts]


def main() -> None:
    """Print one line for each number of proposed tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--draft_dtype", choices=DTYPES, default="float32")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--num_proposed", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--num_prompts", type=int, default=8)
    parser.add_argument("--max_new_tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    run, small = open_run(args.run), open_run(args.draft)
    assert run.tokenizer.fingerprint == small.tokenizer.fingerprint, "other tokenizers"
    net = run.transformer.to(DTYPES[args.dtype])
    small_net = small.transformer.to(DTYPES[args.draft_dtype])
    sizes = [count_parameters(each.config)["total"] for each in (net, small_net)]
    config = SamplingConfig(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    prompts = prompts_of(args.text.read_text(encoding="utf-8"), args.num_prompts)
    print(f"{sizes[0] / 1e6:.1f}M, draft {sizes[1] / 1e6:.1f}M, {sizes[0] / sizes[1]:.1f}x smaller")
    for num_proposed in args.num_proposed:
        draft = Draft(small_net, num_proposed)
        plain, drafted = [], []
        for round in range(args.rounds + 1):  # the first compiles and is not counted
            for prompt in prompts:
                one = decode(net, run.tokenizer, [prompt], config, compiled=True)
                two = speculate(net, draft, run.tokenizer, [prompt], config, compiled=True)
                speeds = tokens_per_second(one), tokens_per_second(two)
                if round:
                    plain.append(speeds[0])
                    drafted.append(speeds[1])
        ratio = statistics.median(b / a for a, b in zip(plain, drafted, strict=True))
        print(
            f"{num_proposed} proposed: {statistics.median(plain):.1f} tokens/s alone, "
            f"{statistics.median(drafted):.1f} with the draft; median ratio {ratio:.2f}, "
            f"{draft.rate:.0%} kept, {draft.tokens_per_check:.2f} tokens a pass",
            flush=True,
        )


if __name__ == "__main__":
    main()
