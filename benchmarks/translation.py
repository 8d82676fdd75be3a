"""Chinese to English from scratch: ours against Hugging Face's Marian under Seq2SeqTrainer.

    python benchmarks/translation.py speed --data data --steps 20 --rounds 3
    python benchmarks/translation.py quality --data data --minutes 20

`data` holds tatoeba_zh_en. Both read the same pieces of the same pairs with networks of equal
shape (3 + 3 layers, 256 wide, 4 heads, inner 1024, dropout 0.3, labels smoothed by 0.1), in
bfloat16. The peer is at its best here: batches of like length, AdamW at 1e-3 with warm-up and a
linear fall, swept over 5e-4, 1e-3 and 2e-3; as many pairs in a batch as ours has in the mean.

speed: a round is some steps of each in turn; medians of the non-padding pieces a second of all
steps but the first five. quality: each is given so many minutes, for which its schedule is made
after a measured start, and answers the test split greedily; SacreBLEU, with its signature.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from gpt4o_lit import configs
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.corpus.examples import Examples
from gpt4o_lit.corpus.pairs import texts_of
from gpt4o_lit.data.tables import IGNORED, padded
from gpt4o_lit.evaluation.text_metrics import text_metric

EXPERIMENT, SKIPPED = "translate_zh_en", 5
LAYERS, DIM, HEADS, INNER, DROPOUT = 3, 256, 4, 1024, 0.3
QUIET = ("--trainer.limit_val_batches", "0", "--trainer.callbacks", "null",
         "--checkpoint.monitor", "train/loss")  # fmt: skip
Row = dict[str, list[int]]


def our_config(data: Path, folder: Path) -> Path:
    """The packaged experiment on this data, wherever one stands."""
    values: Any = yaml.safe_load(configs.find(EXPERIMENT).read_text(encoding="utf-8"))
    arguments = values["data"]["init_args"]
    arguments["directory"] = str(folder / "pairs")
    for split in ("train", "valid", "test"):
        arguments["pairs"][split] = str(data / f"tatoeba_zh_en/{split}.tsv")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def ours(config: Path, run: Path, steps: int, *flags: str) -> float:
    """Pieces a second while the whole command trains so many steps."""
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config)]
    command += ["--config", str(configs.find("with/bf16")), "--run_dir", str(run)]
    command += ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)]
    command += ["--trainer.log_every_n_steps", str(SKIPPED), "--progress.refresh_rate", "0", *flags]
    done = subprocess.run(command, cwd=run.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_metrics(run / "metrics.csv")
    speeds = [row["perf/tokens_per_second"] for row in rows if "perf/tokens_per_second" in row]
    return statistics.median(speeds[1:])


class Peer:
    """Seq2SeqTrainer and a Marian of the same shape on the same pieces."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.examples, self.folder, self.batch_size = Examples(folder / "pairs"), folder, batch_size
        self.tokenizer = self.examples.tokenizer
        split, eos = self.examples.split("train"), self.tokenizer.eos_id
        self.rows: list[Row] = [
            {"input_ids": [*source.tolist(), eos], "labels": [*target.tolist(), eos]}
            for source, target in map(split.pair, range(len(split)))
        ]

    def model(self) -> transformers.MarianMTModel:
        """Ours in their words."""
        tokenizer = self.tokenizer
        config = transformers.MarianConfig(
            vocab_size=tokenizer.vocab_size, d_model=DIM, encoder_layers=LAYERS,
            decoder_layers=LAYERS, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
            encoder_ffn_dim=INNER, decoder_ffn_dim=INNER, dropout=DROPOUT, attention_dropout=0.0,
            activation_dropout=0.0, activation_function="gelu", scale_embedding=True,
            max_position_embeddings=64, pad_token_id=tokenizer.pad_id,
            eos_token_id=tokenizer.eos_id, bos_token_id=None, forced_eos_token_id=None,
            decoder_start_token_id=tokenizer.pad_id, share_encoder_decoder_embeddings=True,
        )  # fmt: skip
        return transformers.MarianMTModel(config)

    def collate(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Padded on the right, as theirs does."""
        sources = padded(
            [torch.tensor(row["input_ids"]).numpy() for row in rows], self.tokenizer.pad_id
        )
        labels = padded([torch.tensor(row["labels"]).numpy() for row in rows], IGNORED)
        mask = padded([torch.ones(len(row["input_ids"])).numpy() for row in rows], 0)
        # With smoothed labels their loss is no part of the model, which then shifts nothing itself.
        starts = torch.full_like(labels[:, :1], self.tokenizer.pad_id)
        read = torch.cat([starts, labels[:, :-1]], dim=1)
        read = read.masked_fill(read == IGNORED, self.tokenizer.pad_id)
        return {
            "input_ids": sources,
            "labels": labels,
            "attention_mask": mask,
            "decoder_input_ids": read,
        }

    def train(self, steps: int, rate: float) -> tuple[transformers.MarianMTModel, float]:
        """The trained model, and non-padding pieces a second."""
        clock = Clock()
        out = tempfile.mkdtemp(dir=self.folder)
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=out, max_steps=steps, per_device_train_batch_size=self.batch_size,
            learning_rate=rate, lr_scheduler_type="linear", warmup_steps=max(1, steps // 10),
            label_smoothing_factor=0.1, max_grad_norm=1.0, weight_decay=0.01, bf16=True,
            use_cpu=True, train_sampling_strategy="group_by_length", save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip

        def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
            clock.pieces.append(sum(len(row["input_ids"]) + len(row["labels"]) for row in rows))
            return self.collate(rows)

        model = self.model()
        transformers.Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=self.rows, data_collator=collate,
            callbacks=[clock],
        ).train()  # fmt: skip
        shutil.rmtree(out)
        return model, clock.speed

    @torch.inference_mode()
    def answers(self, model: transformers.MarianMTModel) -> list[str]:
        """The test split, greedily."""
        tokenizer, split = self.tokenizer, self.examples.split("test")
        texts = []
        model.eval()
        for start in range(0, len(split), 32):
            rows = [
                split.pair(index)[0].tolist() for index in range(start, min(start + 32, len(split)))
            ]
            batch = self.collate(
                [{"input_ids": [*row, tokenizer.eos_id], "labels": [0]} for row in rows]
            )
            found = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                max_new_tokens=62, num_beams=1, do_sample=False,
            )  # fmt: skip
            texts += [tokenizer.decode(ids) for ids in found.tolist()]
        return texts


class Clock(transformers.TrainerCallback):
    """Times steps and counts their pieces."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.pieces: list[int] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step is over."""
        self.times.append(time.perf_counter())

    @property
    def speed(self) -> float:
        """Pieces a second, by fives as ours are logged."""
        marks = range(SKIPPED, len(self.times), SKIPPED)
        return statistics.median(
            sum(self.pieces[end - SKIPPED + 1 : end + 1])
            / (self.times[end] - self.times[end - SKIPPED])
            for end in marks
        )


def speed(peer: Peer, config: Path, folder: Path, args: argparse.Namespace) -> None:
    """Rounds of both in turn."""
    found: dict[str, list[float]] = {"ours": [], "Seq2SeqTrainer": []}
    for number in range(args.rounds):
        run = folder / f"speed{number}"
        found["ours"].append(ours(config, run, args.steps, *QUIET))
        found["Seq2SeqTrainer"].append(peer.train(args.steps, 1e-3)[1])
        print({name: round(speeds[-1]) for name, speeds in found.items()}, flush=True)
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    ratio = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
    print(json.dumps({"pieces_per_second": medians, "ratio": round(ratio, 3)}))


def quality(peer: Peer, config: Path, folder: Path, args: argparse.Namespace) -> None:
    """As good as each becomes in the same time."""
    told = {}
    if args.who != "ours":
        told["Seq2SeqTrainer"] = their_quality(peer, args)
        print(json.dumps(told), flush=True)
    if args.who != "peer":
        told["ours"] = our_quality(config, folder, 60 * args.minutes)
    print(json.dumps(told))


def their_quality(peer: Peer, args: argparse.Namespace) -> dict[str, Any]:
    """BLEU on the test split, seconds and steps of the peer."""
    start = time.perf_counter()
    peer.train(30, args.rate)
    steps = round(30 * 60 * args.minutes / (time.perf_counter() - start))
    start = time.perf_counter()
    model, _ = peer.train(steps, args.rate)
    seconds = time.perf_counter() - start
    metric, pairs = text_metric("sacrebleu"), texts_of(peer.examples, "test")
    sums = metric.statistics(peer.answers(model), [pair.references for pair in pairs])
    scores = metric.scores(sums) | {"seconds": seconds, "steps": steps}
    return scores | {"signature": metric.signature(sums)}


def our_quality(config: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """The same of ours, validations and start-up included in the seconds."""
    start = time.perf_counter()
    ours(config, folder / "start", 30, *QUIET)
    steps, run = round(0.9 * 30 * seconds / (time.perf_counter() - start)), folder / "run"
    start = time.perf_counter()
    ours(config, run, steps)
    taken = time.perf_counter() - start
    command = [sys.executable, "-m", "gpt4o_lit", "test", "--resume", str(run)]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    (scores,) = run.glob("test/*/outputs/scores.jsonl")
    told = json.loads(scores.read_text(encoding="utf-8").splitlines()[-1])
    return {
        "sacrebleu": told["scores"]["test/sacrebleu"],
        "seconds": taken,
        "steps": steps,
        "signature": told["signatures"]["test/sacrebleu"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "quality"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--who", choices=("both", "ours", "peer"), default="both")
    parser.add_argument("--rate", type=float, default=1e-3, help="the peer's learning rate")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = our_config(args.data.resolve(), folder)
        ours(config, folder / "first", 2 * SKIPPED, *QUIET)
        examples = Examples(folder / "pairs")
        lengths = examples.split("train").lengths.sum(1) + 2
        peer = Peer(folder, batch_size=round(0.93 * 4096 / float(lengths.mean())))
        (speed if args.what == "speed" else quality)(peer, config, folder, args)


if __name__ == "__main__":
    main()
