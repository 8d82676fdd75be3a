"""Memory, largest micro-batch and speed of a training run, before it is started."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gpt4o_lit.evaluation.devices import MACHINE_DEVICES, Device
from gpt4o_lit.evaluation.rehearsal import Amend, Micro, Recipe, Rehearsal, rehearse
from gpt4o_lit.evaluation.sharding import (
    STRATEGIES,
    Mesh,
    Strategy,
    block_parameters,
    sliced,
)
from gpt4o_lit.model import TransformerConfig
from gpt4o_lit.model.count import count_parameters, training_flops

# Fitted, as shares in `devices` are, to every second row of tests/evaluation/published.py.
FEATURE_BYTES = 510
"""Bytes that norms, activations and sums move for each feature of a token in a block."""
LINK_SHARE = 0.66
"""Of what links and the network can carry."""
LOGIT_BYTES = 8
"""Bytes that the loss moves for each logit."""

HOST_LINK = 25e9
"""Bytes/s that reach a CPU over PCIe 4.0 x16."""
SMALL_GAPS = 0.18
"""What small objects between tensors add to a CPU's heap as it is played through, and what a
process has beside that heap. Both fitted to what tests/end_to_end/test_plan.py measures."""
BESIDE_HEAP = 30e6
LARGEST_CLUSTER = 4096


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, as far as its cost goes."""

    config: TransformerConfig
    """With its vocab_size."""
    micro: Micro
    recipe: Recipe
    device: Device
    devices: int
    accumulate: int = 1
    """Micro-batches of an optimizer step."""
    rate: str = "fp32"
    """The field of Device that says how fast products are: bf16, fp32 or fp8."""
    amend: Amend | None = None
    """What is done to the network before it is trained."""
    replicas: int = 2
    """Groups of devices that hold the network, where a strategy has them."""
    tensor: int = 2
    """Devices that split matrices, where a strategy has groups of such."""

    @property
    def room(self) -> float:
        """Bytes that a process has: those on the CPUs of a machine share its memory."""
        return self.device.memory / (self.devices if self.micro.on_cpu else 1)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a strategy would cost."""

    memory: dict[str, float]
    """Bytes on a device when most is in use, by kind."""
    room: float
    """Bytes that there are."""
    largest: int
    """Rows of the largest micro-batch that fits; 0: none does."""
    limit: str
    """The kind of which there is most then."""
    step_seconds: float
    """Of an optimizer step, of the micro-batch that was asked for."""
    step_tokens: int
    """That all devices read in it."""
    token_flops: float
    """That a token needs, nothing computed twice."""

    @property
    def fits(self) -> bool:
        """Whether the micro-batch that was asked for does."""
        return sum(self.memory.values()) <= self.room


@dataclass
class Planner:
    """Plays the step of a job through and shares it out."""

    job: Job
    _played: dict[tuple[TransformerConfig, Micro], Rehearsal] = field(default_factory=dict)

    def outlook(self, strategy: Strategy) -> Outlook:
        """All of it, of one strategy.

        Raises:
            ValueError: the optimizer, the network or its adapters cannot be had in parts.
        """
        job, recipe = self.job, self.job.recipe
        if strategy.needs_parts and getattr(recipe, "needs_whole_weights", False):
            raise ValueError(f"{type(recipe).__name__} needs weights that are whole")
        if strategy.tensor and job.amend is not None:
            raise ValueError("adapters need layers that are whole")
        used = self.memory(strategy, job.micro.rows)
        room = job.room
        largest = _largest(lambda rows: sum(self.memory(strategy, rows).values()), room)
        most = self.memory(strategy, max(1, largest))
        rows = job.micro.rows * job.accumulate * self._mesh(strategy).readers
        tokens = job.micro.target + job.micro.source
        flops = sum(_flops(job.config, job.micro, self._learns(strategy), twice=False))
        return Outlook(
            memory=used,
            room=room,
            largest=largest,
            limit=max(most, key=most.__getitem__),
            step_seconds=self.step_seconds(strategy),
            step_tokens=rows * tokens,
            token_flops=flops / tokens,
        )

    def memory(self, strategy: Strategy, rows: int) -> dict[str, float]:
        """Bytes on a device when most is in use, by kind."""
        played = self._rehearsal(strategy, rows)
        parts = 1 / self._mesh(strategy).parts
        of_gradients = parts if strategy.gradients else 1.0
        moments = played.moments
        if self.job.accumulate > 1:  # those of the window so far are there all the time
            moments = tuple((working, played.gradients) for working, _ in moments)
        working: float
        working, gradients = max(moments, key=lambda pair: pair[0] + of_gradients * pair[1])
        updates = played.updates * (parts if strategy.optimizer else 1.0)
        if updates + of_gradients * played.gradients > working + of_gradients * gradients:
            working, gradients, kept = updates, played.gradients, 0.0
        else:
            kept = min(working, played.kept)
        used = {
            "weights": played.weights * (parts if strategy.weights else 1.0) + played.buffers,
            "masters": 0.0,
            "gradients": gradients * of_gradients,
            "optimizer": played.optimizer * (parts if strategy.optimizer else 1.0),
            "activations": kept,
            "working": working - kept,
            "in transit": self._communication(strategy, rows),
        }
        micro = self.job.micro
        if strategy.masters and micro.products != micro.weights:
            used["masters"] = played.trained * micro.weights.itemsize * parts
            # Of masters, not of what was played with.
            used["optimizer"] *= micro.weights.itemsize / micro.products.itemsize
        for kind in _OFFLOADED[strategy.offload]:
            used[kind] = 0.0
        if micro.on_cpu:
            reach = (1 + SMALL_GAPS) * played.gaps
            used["heap"] = BESIDE_HEAP + (reach - 1) * sum(used.values())
        return used

    def step_seconds(self, strategy: Strategy) -> float:
        """Of an optimizer step: products, what moves through memory, and what is sent, in turn."""
        job, micro, config, device = self.job, self.job.micro, self.job.config, self.job.device
        blocks, head, attention = _flops(config, micro, self._learns(strategy))
        peak = getattr(device, job.rate)
        wide = device.bf16 if job.rate == "fp8" else peak  # fp8 is for the blocks' matrices
        seconds = (blocks / peak + head / wide) / device.products
        seconds += attention / (device.attention * wide)
        logits = LOGIT_BYTES * micro.asked * config.num_outputs
        seconds += (FEATURE_BYTES * _features(config, micro) + logits) / device.bandwidth
        seconds = micro.rows * seconds / self._mesh(strategy).tensor
        return job.accumulate * (seconds + self._sending(strategy)) + self._updating(strategy)

    def _sending(self, strategy: Strategy) -> float:
        """Seconds of a micro-batch; nothing of it is taken to be hidden."""
        micro, mesh, device = self.job.micro, self._mesh(strategy), self.job.device
        weights = self._weight_bytes(strategy) / mesh.tensor
        learns = self._learns(strategy)
        frozen_sends = strategy.sends - 1 if strategy.weights else 0.0  # they have no gradients
        sends = learns * strategy.sends + (1 - learns) * frozen_sends
        seconds = sends * _gather(weights, mesh.parts, mesh.tensor, device)
        if mesh.replicas > 1:
            abreast, sums = min(mesh.parts, MACHINE_DEVICES), learns * weights / mesh.parts
            seconds += 2 * _gather(sums, mesh.replicas, abreast, device)
        if not (strategy.weights or strategy.gradients):
            seconds /= self.job.accumulate  # once a step
        if mesh.tensor > 1:  # two sums of a block forward, two backward
            states = micro.rows * _features(self.job.config, micro) * micro.products.itemsize
            seconds += 8 * _gather(states, mesh.tensor, 1, device)
        if strategy.offload == "all":
            seconds += 3 * weights / mesh.parts / HOST_LINK
        return seconds

    def _updating(self, strategy: Strategy) -> float:
        """Seconds of the optimizer, as AdamW's: it reads gradients, and reads and writes weights
        and two moments."""
        mesh = self._mesh(strategy)
        weights = self._weight_bytes(replace(strategy, masters=False))
        moved: float = 7 * self._learns(strategy) * weights / mesh.tensor
        moved /= mesh.parts if strategy.optimizer else 1
        slow = strategy.offload != "nothing"
        return moved / (HOST_LINK if slow else self.job.device.bandwidth)

    def _communication(self, strategy: Strategy, rows: int) -> float:
        """Bytes of weights that are gathered and of gradients on their way."""
        job, micro, mesh = self.job, self.job.micro, self._mesh(strategy)
        if job.devices == 1 and strategy.offload == "nothing":
            return 0.0
        config = sliced(job.config, mesh.tensor)
        total = count_parameters(config)["total"]
        block, outside = block_parameters(config)
        learns = self._learns(strategy)
        numbers: float = min(strategy.buckets, learns * total)
        if strategy.gathers != "nothing":
            weights = total if strategy.gathers == "all" else outside + 2 * block
            numbers += weights + learns * (outside + 2 * block)
        states = 0
        if strategy.tensor:
            states = rows * (micro.target + micro.source) * config.dim * micro.products.itemsize
        return numbers * self._weight_size(strategy) + states

    def _rehearsal(self, strategy: Strategy, rows: int) -> Rehearsal:
        job = self.job
        config = sliced(job.config, self._mesh(strategy).tensor)
        micro = replace(job.micro, rows=rows)
        if strategy.masters:
            micro = replace(micro, weights=micro.products)
        if (config, micro) not in self._played:
            self._played[config, micro] = rehearse(config, micro, job.recipe, job.amend)
        return self._played[config, micro]

    def _learns(self, strategy: Strategy) -> float:
        """The share of the weights that does."""
        if self.job.amend is None:
            return 1.0
        config = sliced(self.job.config, self._mesh(strategy).tensor)
        trained = self._rehearsal(strategy, self.job.micro.rows).trained
        return trained / count_parameters(config)["total"]

    def _mesh(self, strategy: Strategy) -> Mesh:
        return strategy.mesh(self.job.devices, self.job.replicas, self.job.tensor)

    def _weight_size(self, strategy: Strategy) -> int:
        micro = self.job.micro
        return (micro.products if strategy.masters else micro.weights).itemsize

    def _weight_bytes(self, strategy: Strategy) -> int:
        return count_parameters(self.job.config)["total"] * self._weight_size(strategy)


_OFFLOADED = {
    "nothing": (),
    "optimizer": ("optimizer", "masters"),
    "all": ("optimizer", "masters", "weights", "gradients"),
}


def strategies_for(devices: int) -> dict[str, Strategy]:
    """Those that make sense on so many devices."""
    if devices == 1:
        alone = ("one", "fsdp2 offload", "zero2 offload", "zero3 offload")
        return {name: STRATEGIES[name] for name in alone}
    groups = ("hsdp", "fsdp2 x tensor") if devices == 2 else ()
    return {name: STRATEGIES[name] for name in STRATEGIES if name not in ("one", *groups)}


def what_would_fit(job: Job) -> str:
    """The least that lets a row of a network fit that fits nowhere."""
    planner = Planner(replace(job, config=checkpointed(job.config), accumulate=1))
    most = job.devices if job.micro.on_cpu else LARGEST_CLUSTER
    while planner.job.devices <= most:
        devices = planner.job.devices
        if sum(planner.memory(STRATEGIES["fsdp2"], 1).values()) <= planner.job.room:
            return f"rows of 1, checkpointing: true in each stack, and --devices {devices} (fsdp2)"
        planner.job = replace(planner.job, devices=2 * devices)
    return "a device with more memory, or a network with smaller blocks or shorter rows"


def checkpointed(config: TransformerConfig) -> TransformerConfig:
    """The same network, which makes its activations again in the backward."""
    stacks = {name: getattr(config, name) for name in ("encoder", "decoder")}
    return replace(
        config,
        **{name: stack and replace(stack, checkpointing=True) for name, stack in stacks.items()},
    )


def _gather(numbers: float, among: int, abreast: int, device: Device) -> float:
    """Seconds until each of some devices has so many bytes that lie among them in parts.

    Neighbours of a machine do it `abreast`, each with bytes of its own, and share its network.
    """
    seconds = numbers / device.link
    if among * abreast > MACHINE_DEVICES:
        seconds = max(seconds, abreast * numbers / device.network)
    return (among - 1) / among * seconds / LINK_SHARE


def _flops(
    config: TransformerConfig, micro: Micro, learns: float, twice: bool = True
) -> tuple[float, float, float]:
    """Of a row: those of the blocks' products, of the head's, and of attention, which grow with
    the square. A third of a matrix's is for its gradient, which only what learns has."""

    def of(times: int) -> float:
        return training_flops(
            config,
            target=times * micro.target,
            asked=times * micro.asked,
            source=times * micro.source,
        )

    attention = (of(2) - 2 * of(1)) / 2
    head = 6.0 * config.num_outputs * config.dim * micro.asked
    again = 1 / 3 if twice and config.output_stack.checkpointing else 0.0
    passes = (2 + learns) / 3
    return (again + passes) * (of(1) - attention - head), passes * head, (again + 1) * attention


def _features(config: TransformerConfig, micro: Micro) -> float:
    """Features of all tokens of a row in all blocks; a block with cross-attention counts as 1.5."""
    total = 0.0
    both = config.encoder is not None and config.decoder is not None
    if config.encoder is not None:
        length = micro.source if both else micro.target
        total += _recomputed(config.encoder.checkpointing) * length * config.encoder.num_layers
    if config.decoder is not None:
        blocks = config.decoder.num_layers * (1.5 if both else 1.0)
        total += _recomputed(config.decoder.checkpointing) * micro.target * blocks
    return config.dim * total


def _recomputed(checkpointing: bool) -> float:
    return 4 / 3 if checkpointing else 1.0


def _largest(used: Callable[[int], float], room: float) -> int:
    """The most rows whose memory, which grows with them nearly on a line, fits into the room; of
    64 and more, within a 64th below."""
    low, high = 0, None
    guess, known = 1, {}
    while high is None or high - low > 1 + low // 64:
        known[guess] = used(guess)
        if known[guess] <= room:
            low = guess
        else:
            high = guess
        if high == 1:
            return 0
        if high is None and low == 1:
            guess = 2
            continue
        other = 1 if high is None else high
        slope = (known[other] - known[low]) / (other - low)
        guess = low + int((room - known[low]) / slope) if slope > 0 else 2 * low
        guess = max(low + 1 + low // 64, guess)
        guess = guess if high is None else min(guess, high - 1)
    return low
