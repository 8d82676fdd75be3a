"""What every test shares: few threads, a fixed seed, and the folder with real data, if any."""

import os
from collections.abc import Callable
from pathlib import Path

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
threads = max(1, min(2, os.cpu_count() or 1) // workers)
os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that tests start, too

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace steps as for compiling, and run what was traced without making machine code of it."""
    from torch._dynamo.backends.debugging import aot_eager
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(
        "torch._inductor.compile_fx.compile_fx",
        lambda graph, inputs, config_patches: aot_eager(graph, inputs),
    )


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder to work in for all who follow the documents: corpora are built there once."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture
def real_data() -> Path:
    """The folder of real corpora named by GPT4O_LIT_DATA."""
    folder = os.environ.get("GPT4O_LIT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set GPT4O_LIT_DATA to the folder with the real corpora")
    return Path(folder)


Saved = Callable[..., Path]


@pytest.fixture
def theirs(tmp_path: Path) -> Saved:
    """Save a tiny model with a tokenizer as they do."""

    import transformers

    from tests.interop.tiny_hugging_face import PAIRS, make
    from tests.tokenizer.test_hugging_face import byte_level, metaspace, word_piece
    from tests.tokenizer.test_marian import write_files

    def save(name: str, pieces: int = 500, folder: str = "theirs") -> Path:
        path = tmp_path / folder
        marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        if name.startswith("bert"):
            fast = word_piece()
            marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                     "unk_token": "[UNK]", "mask_token": "[MASK]"}  # fmt: skip
        elif name in PAIRS:
            fast = metaspace()
        else:
            fast, marks = byte_level(), {"eos_token": "</s>"}
        model = make(name)
        if pieces != 61:
            model.resize_token_embeddings(pieces, mean_resizing=False)
        model.save_pretrained(path)
        if name == "marian":
            return write_files(path)
        transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **marks).save_pretrained(path)
        return path

    return save
