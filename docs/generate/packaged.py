"""Every packaged config, as it is, on a page for each kind."""

import re

from gpt4o_lit import configs

FOLDER = "reference/configs"
KINDS = {
    configs.EXPERIMENTS: ("Experiments", "Complete in themselves: `gpt4o-lit fit --config NAME`."),
    configs.OVERLAYS: (
        "Overlays",
        "Laid over an experiment: `gpt4o-lit fit --config NAME --config with/OVERLAY`.",
    ),
    configs.SIZES: (
        "Sizes",
        "In place of an experiment's network: `--model.init_args.transformer model/SIZE`.",
    ),
    configs.RECIPES: (
        "Recipes",
        "How a run is made smaller: `gpt4o-lit compress RUN --recipe NAME`.",
    ),
    configs.GRIDS: (
        "Grids",
        "Ablations: `gpt4o-lit ablate NAME`. [What their keys mean](../../ablations.md).",
    ),
}
LAUNCH = "launch/slurm.sbatch"


def pages() -> dict[str, str]:
    """By path, the index first."""
    index = ["# Packaged configs", "", "`gpt4o-lit configs` lists them and prints one.", ""]
    found: dict[str, str] = {f"{FOLDER}/index.md": ""}
    for kind, (title, told) in KINDS.items():
        names = [name for name in configs.names() if _kind(name) == kind]
        index += [f"## {title}", "", told, "", "| name | |", "|---|---|"]
        lines = [f"# {title}", "", told, ""]
        for name in names:
            anchor = re.sub(r"[^a-z0-9_]+", "", name.replace("/", "-").replace("-", ""))
            index.append(f"| [`{name}`]({kind}.md#{anchor}) | {_cell(configs.first_line(name))} |")
            head, text = _parts(configs.find(name).read_text(encoding="utf-8"))
            lines += [f"## {name} {{ #{anchor} }}", "", *head, "```yaml", text, "```", ""]
        index.append("")
        found[f"{FOLDER}/{kind}.md"] = "\n".join(lines)
    text = configs.find(LAUNCH).read_text(encoding="utf-8").rstrip()
    told = "For SLURM: [Scale out](../../launch.md#slurm) tells how it is used."
    lines = ["# Launch scripts", "", told, "", f"## {LAUNCH}", "", "```sh", text, "```"]
    found[f"{FOLDER}/launch.md"] = "\n".join(lines)
    index += ["## Launch scripts", "", f"[`{LAUNCH}`](launch.md)", ""]
    found[f"{FOLDER}/index.md"] = "\n".join(index)
    return found


def _kind(name: str) -> str:
    return name.partition("/")[0] if "/" in name else configs.EXPERIMENTS


def _parts(text: str) -> tuple[list[str], str]:
    """The comment that a config opens with, its commands as such; and the rest."""
    lines = text.rstrip().splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    head: list[str] = []
    in_command = False
    for line in (line.lstrip("#").strip() for line in lines[:count]):
        if line.startswith("gpt4o-lit "):
            head += ["", "```bash", re.sub(r"\s{2,}\((.*)\)$", r"   # \1", line)]
            in_command = True
        elif in_command:
            head.append(f"  {line}")
        else:
            head.append(_cell(line))
        if in_command and not line.endswith("\\"):
            head += ["```", ""]
            in_command = False
    return [*head, ""], "\n".join(lines[count:])


def _cell(text: str) -> str:
    return re.sub(r"(?<!`)([<*_|])(?!`)", r"\\\1", text)
