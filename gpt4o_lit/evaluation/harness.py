"""Our networks behind EleutherAI's lm-evaluation-harness, and its tasks on local files."""

import functools
import gzip
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from gpt4o_lit.evaluation.likelihood import BATCH_TOKENS, Pair, likelihoods
from gpt4o_lit.generation import PromptFormat, SamplingConfig, generate
from gpt4o_lit.generation.prefill import PLAIN, start_id
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

try:
    from lm_eval import simple_evaluate, utils
    from lm_eval.api.model import TemplateLM
    from lm_eval.tasks import TaskManager
except ModuleNotFoundError as error:
    raise ValueError(
        f"tasks need the evaluation harness ({error.name}); pip install 'gpt4o-lit[harness]'"
    ) from error

# How the files of a task are told from their endings, for the library `datasets`.
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
SAMPLING = {"do_sample", "temperature", "top_k", "top_p", "min_p", "until", "max_gen_toks"}
# Rows of llm-foundry's files, whatever the task's own rows are called.
CONTINUATION = {"doc_to_text": "{{context}}", "doc_to_target": "{{' ' + continuation}}"}
CHOICE = {
    "doc_to_text": "{{query | trim}}{{'\\nAnswer:' if query.startswith('Question:') else ''}}",
    "doc_to_target": "{{gold}}",
    "doc_to_choice": "{{choices}}",
}


class HarnessModel(TemplateLM):
    """A network and its tokenizer as the harness asks for a model.

    Args:
        transformer: A decoder or an encoder-decoder, in evaluation mode.
        batch_tokens: Most tokens read at once.
    """

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: Tokenizer,
        prompt_format: PromptFormat = PLAIN,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        super().__init__()
        self.backend = "causal" if transformer.encoder is None else "seq2seq"
        self._net, self._pieces = transformer, tokenizer
        self._format, self._batch_tokens = prompt_format, batch_tokens

    @property
    def max_length(self) -> int:
        """Tokens that the network reads at once."""
        return self._net.config.max_seq_len

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return self._pieces.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing is given for."""
        size = self._net.config.vocab_size or 0
        return self._pieces.bos_id if self._pieces.bos_id < size else self._pieces.eos_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """The ids of a text, with bos and eos as in training."""
        ids = self._pieces.encode(string)
        return ids if add_special_tokens is False else self._format.surround(ids, self._pieces)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        from tqdm import tqdm

        pairs: list[Pair] = [(given, asked) for _, given, asked in requests]
        with tqdm(total=len(pairs), desc="likelihoods", disable=disable_tqdm) as bar:
            found = likelihoods(
                self._net,
                pairs,
                start_id=start_id(self._net, self._pieces),
                bidirectional=self._format.bidirectional,
                batch_tokens=self._batch_tokens,
                on_batch=bar.update,
            )
        return [(each.nats, each.is_greedy) for each in found]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of whole texts, in windows side by side as the harness cuts them."""
        totals = []
        for request in requests:
            (text,) = request.args
            cut = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length, context_len=1,
            )  # fmt: skip
            rows = [(None, *utils.make_disjoint_window(window)) for window in cut]
            totals.append(sum(nats for nats, _ in self._loglikelihood_tokens(rows, disable_tqdm)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written behind each text, up to where the task says that it ends."""
        from tqdm import tqdm

        texts = []
        for request in tqdm(requests, desc="texts", disable=disable_tqdm):
            context, wishes = request.args
            config = _sampling(wishes)
            ids = self.tok_encode(context, add_special_tokens=False)
            room = self.max_length - len(self._format.surround([], self._pieces))
            if self.backend == "causal":
                room -= config.max_new_tokens
            if room < 1:
                raise ValueError(
                    f"the task writes up to {config.max_new_tokens} tokens (max_gen_toks), which "
                    f"leaves no room for a prompt in max_seq_len ({self.max_length}); lower it in "
                    "the task's generation_kwargs"
                )
            texts += generate(
                self._net, self._pieces, [ids[-room:]], config, prompt_format=self._format
            )
        return texts


def evaluate(
    model: HarnessModel,
    tasks: Sequence[Path | str],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> dict[str, Any]:
    """The harness's results by task: each metric, its standard error, and what was run.

    Args:
        tasks: Names of the harness, or YAML files as `write_tasks` makes them.
        limit: Rows of each task, the first ones; None: all.
        num_fewshot: Examples before each question; None: as the task says.

    Raises:
        OSError: the rows of a task are neither here nor on the hub.
    """
    try:
        with _own_random_state():
            found: dict[str, Any] = simple_evaluate(
                model=model, tasks=[str(task) for task in tasks], limit=limit,
                num_fewshot=num_fewshot, log_samples=False, task_manager=_manager(),
            )  # fmt: skip
    except OSError as error:
        raise OSError(
            f"rows of a task cannot be had ({error}); give NAME=FILE to read them from here"
        ) from error
    return found


def write_tasks(wanted: Iterable[str], folder: Path) -> list[Path | str]:
    """What `evaluate` takes, for each of `NAME`, `NAME=FILE` and `NAME=FOLDER`.

    With a file (.jsonl, .csv or .parquet, also .gz) the task is written to `folder` as a YAML file
    that includes the harness's own and reads the local rows. They have the fields of the task, or
    those of llm-foundry: `context` and `continuation`, or `query`, `choices` and `gold`. A folder
    stands for the tasks of a group that it has files of: blimp=data/blimp holds passive_1.jsonl.gz.

    Raises:
        ValueError: the harness has no such task; the nearest are named.
        FileNotFoundError: there is no such file, or none in the folder that a task is called after.
    """
    index = _manager().task_index
    tasks: list[Path | str] = []
    for wish in wanted:
        name, _, place = wish.partition("=")
        is_yaml = Path(name).suffix in (".yaml", ".yml")
        if name not in index and not (is_yaml and Path(name).is_file()):
            raise ValueError(f"tasks: the harness has no {name}{_nearest(name, index)}")
        if not place:
            tasks.append(name)
            continue
        for task, file in _files(name, Path(place), index):
            base = Path(name) if is_yaml else index[task].yaml_path
            tasks.append(_write_task(task, base.resolve(), file, folder))
    return tasks


@contextmanager
def _own_random_state() -> Iterator[None]:
    """The harness seeds every generator; a training that goes on must not notice."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


@functools.cache
def _manager() -> TaskManager:
    """All tasks of the harness; listing them takes seconds."""
    return TaskManager()


def _files(name: str, place: Path, index: Any) -> list[tuple[str, Path]]:
    """The tasks of a name and the file of each."""
    if not place.exists():
        from gpt4o_lit.tokenizer.load import nearest_name

        raise FileNotFoundError(f"{place} does not exist{nearest_name(place)}")
    if place.is_file():
        if name in index and index[name].kind.name in ("GROUP", "TAG"):
            raise ValueError(f"tasks: {name} is a group; give {name}=FOLDER, or one of its tasks")
        return [(name if name in index else Path(name).stem, place)]
    found = []
    for file in sorted(place.iterdir()):
        stem = file.name.split(".")[0]
        if f"{name}_{stem}" in index:
            found.append((f"{name}_{stem}", file))
        elif stem in index and name in index[stem].tags:
            found.append((stem, file))
    if not found:
        raise FileNotFoundError(
            f"{place} holds no file that is called after a task of {name}; give {name}=FILE"
        )
    return found


def _write_task(name: str, base: Path, file: Path, folder: Path) -> Path:
    endings = [ending for ending in file.suffixes if ending in READERS]
    if not endings:
        raise ValueError(f"{file} is of no known kind; give one of {', '.join(READERS)}")
    task = {
        "include": str(base),
        "task": name,
        "dataset_path": READERS[endings[-1]],
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file.resolve())}},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "test",
        **_foreign_rows(file, endings[-1]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return path


def _foreign_rows(file: Path, ending: str) -> dict[str, Any]:
    """How rows of llm-foundry are read; nothing where they have the task's own fields."""
    if ending != ".jsonl":
        return {}
    open_file = gzip.open if file.suffix == ".gz" else open
    with open_file(file, "rt", encoding="utf-8") as lines:
        try:
            fields = set(json.loads(next(lines, "{}")))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}:1 is broken JSON ({error}); mend the line") from error
    if {"context", "continuation"} <= fields:
        return {"process_docs": None, "should_decontaminate": False, **CONTINUATION}
    if {"query", "choices", "gold"} <= fields:
        return {"process_docs": None, "should_decontaminate": False, **CHOICE}
    return {}


def _sampling(wishes: dict[str, Any]) -> SamplingConfig:
    """What a task says of writing, as our config."""
    unknown = {name for name in wishes.keys() - SAMPLING if wishes[name] is not None}
    if unknown:
        raise ValueError(
            f"the task's generation_kwargs ask for {', '.join(sorted(unknown))}, which we lack; "
            f"known are {', '.join(sorted(SAMPLING))}"
        )
    until = wishes.get("until") or []
    draws = wishes.get("do_sample", wishes.get("temperature", 0) > 0)
    return SamplingConfig(
        max_new_tokens=wishes.get("max_gen_toks", 256),
        temperature=wishes.get("temperature", 1.0) if draws else 0.0,
        top_k=wishes.get("top_k"),
        top_p=wishes.get("top_p"),
        min_p=wishes.get("min_p"),
        stop=tuple(word for word in ([until] if isinstance(until, str) else until) if word),
    )


def _nearest(name: str, index: Any) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, index, 3)
    return f"; near are {', '.join(near)}" if near else "; `lm_eval ls tasks` lists them"
