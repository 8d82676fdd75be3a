"""The documents of some sources, where no corpus is built."""

from dataclasses import replace

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.progress import progress_bar
from gpt4o_lit.corpus.route import Router
from gpt4o_lit.corpus.sources import list_files


def documents_of(config: CorpusConfig, progress: bool = False) -> list[str]:
    """Every document of the config's sources in order, whole; splits have no say."""
    whole = replace(config, split="hash")
    files = list_files({"": config.sources})
    texts: list[list[bytes]] = []
    with progress_bar(sum(file.size for file in files), "reading", progress) as bar:
        for piece in Router(whole, files, Skips(config.on_error)).pieces(bar.update):
            if piece.opens:
                texts.append([])
            texts[-1].append(piece.text)
    return [b"".join(parts).decode() for parts in texts]
