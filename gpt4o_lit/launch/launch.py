"""What torchrun and SLURM tell a process about the launch that it belongs to."""

import os
import re
from dataclasses import dataclass

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
WITHOUT_AGENT_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One process's place among those of a launch."""

    name: str
    """Of the launch: the same when it is restarted, and no other launch's."""
    rank: int
    world_size: int
    per_node: int
    nodes: int
    restarts: int
    """How often it was restarted, as far as this process's node knows."""
    environment: ClusterEnvironment
    """What Lightning is told of it."""

    @classmethod
    def here(cls) -> "Launch | None":
        """That of this process; None where it was started by hand.

        Raises:
            ValueError: torchrun was given no name for it, or could not restart it.
        """
        if TorchElasticEnvironment.detect():
            return _by_torchrun()
        return _by_slurm() if SLURMEnvironment.detect() else None


def _by_torchrun() -> Launch:
    name, nodes = os.environ["TORCHELASTIC_RUN_ID"], int(os.environ["GROUP_WORLD_SIZE"])
    if name == "none":
        raise ValueError(
            "torchrun has no name for this launch, by which it would find its run again; add "
            "--rdzv-id NAME, another for each launch, or on one machine --standalone"
        )
    restartable = int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) > 0
    if nodes > 1 and restartable and os.environ.get(AGENT_STORE) == "True":
        raise ValueError(
            "torchrun's agents keep one store for all restarts, and none of several nodes could "
            f"come back; export {WITHOUT_AGENT_STORE}=1 before torchrun on each node, or take "
            "--max-restarts 0"
        )
    environment = TorchElasticEnvironment()
    return Launch(
        name="torchrun_" + re.sub(r"[^\w.-]", "_", name),
        rank=environment.global_rank(),
        world_size=environment.world_size(),
        per_node=int(os.environ["LOCAL_WORLD_SIZE"]),
        nodes=nodes,
        restarts=int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        environment=environment,
    )


def _by_slurm() -> Launch:
    # Lightning's own way to requeue saves in a signal handler, whatever the step is doing.
    try:
        environment = SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ValueError(f"{error} (of Lightning's; see docs/launch.md for a script)") from error
    job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = "_".join(filter(None, job)) or os.environ["SLURM_JOB_ID"]
    nodes = int(os.environ.get("SLURM_NNODES", 1))
    return Launch(
        name=f"slurm_{name}",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
        per_node=environment.world_size() // nodes,
        nodes=nodes,
        restarts=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        environment=environment,
    )
