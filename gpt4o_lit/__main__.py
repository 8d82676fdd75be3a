"""The command line: a table of verbs, each imported when it is asked for and not before."""

import importlib
import os
import signal
import sys

VERBS = {
    "fit": (
        "gpt4o_lit.cli",
        "train a Transformer from raw text; --resume RUN, --from RUN",
    ),
    "validate": ("gpt4o_lit.cli", "loss, perplexity, bits per byte, accuracy on validation text"),
    "test": ("gpt4o_lit.cli", "the same on test text"),
    "predict": ("gpt4o_lit.cli", "the loss of every token of the test text"),
    "evaluate": ("gpt4o_lit.commands.evaluate", "perplexity on texts, and tasks of the harness"),
    "generate": ("gpt4o_lit.commands.generate", "let a trained run write"),
    "predict-file": ("gpt4o_lit.commands.predict_file", "translate, summarize, answer a file"),
    "compress": ("gpt4o_lit.commands.compress", "make a run smaller and faster, and measure it"),
    "report": ("gpt4o_lit.commands.report", "compare runs, or an ablation, on one page"),
    "dashboard": ("gpt4o_lit.commands.dashboard", "a W&B dashboard of an ablation, of compression"),
    "ledger": ("gpt4o_lit.commands.ledger", "measure a run beside what was made of it"),
    "sensitivity": ("gpt4o_lit.commands.sensitivity", "which layers bear pruning and rounding"),
    "ablate": ("gpt4o_lit.commands.ablate", "run what varies of an experiment, seed by seed"),
    "sweep": ("gpt4o_lit.commands.sweep", "search keys for the best metric: random, TPE, ASHA"),
    "runs": ("gpt4o_lit.commands.runs", "list runs: status, step, best metric, age"),
    "compare": ("gpt4o_lit.commands.compare", "metrics, settings and speed of runs side by side"),
    "chat": ("gpt4o_lit.commands.chat", "talk with a run in the terminal"),
    "plan": ("gpt4o_lit.commands.plan", "memory, speed and price of a fit, before it is run"),
    "bench": ("gpt4o_lit.commands.bench", "how fast a network trains, reads and writes here"),
    "explain": ("gpt4o_lit.commands.explain", "attention, logit lens and attributions of a text"),
    "import": ("gpt4o_lit.commands.import_model", "make a run of a Hugging Face model"),
    "consolidate": ("gpt4o_lit.commands.consolidate", "one file of a checkpoint in parts"),
    "export": ("gpt4o_lit.commands.export", "write a run as transformers or torch open it"),
    "tokenizer": ("gpt4o_lit.commands.tokenizer", "train a tokenizer, or measure one on files"),
    "corpus": ("gpt4o_lit.commands.corpus", "tokenize text into memory-mapped shards"),
    "callbacks": ("gpt4o_lit.commands.callbacks", "list the callbacks, and which combine"),
    "configs": ("gpt4o_lit.commands.configs", "list the packaged configs with their first line"),
}


def usage() -> str:
    """What `--help` prints."""
    lines = ["usage: gpt4o-lit VERB [options]    (gpt4o-lit VERB --help tells more)", "", "verbs:"]
    lines += [f"  {verb:<12} {what}" for verb, (_, what) in VERBS.items()]
    lines += [
        "",
        "first steps:",
        "  gpt4o-lit fit --config quickstart",
        "  gpt4o-lit fit --config quickstart --config with/masked_lm --print_config",
        "  gpt4o-lit fit --model.help gpt4o_lit.tasks.Pretraining",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a verb; a mistake is one line and exit code 2 (GPT4O_LIT_DEBUG=1: the traceback)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from gpt4o_lit import __version__

        print(__version__)
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        from difflib import get_close_matches

        near = get_close_matches(verb, VERBS, 1)
        mend = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(VERBS)}"
        print(f"gpt4o-lit: no verb '{verb}'; {mend}", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # class paths of the user's own modules, behind the installed
    try:
        module = importlib.import_module(VERBS[verb][0])
        return int(module.main(argv if VERBS[verb][0] == "gpt4o_lit.cli" else rest) or 0)
    except BrokenPipeError:  # who reads has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        if os.environ.get("GPT4O_LIT_DEBUG"):
            raise
        print(f"gpt4o-lit {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
