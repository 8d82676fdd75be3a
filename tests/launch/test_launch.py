"""What torchrun and SLURM tell a process, and what they did not."""

import pytest

from gpt4o_lit.launch import Launch

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "my run/7", "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "False", "RANK": "5",
    "LOCAL_RANK": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4",
    "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1",
}  # fmt: skip
SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1", "SLURM_NODELIST": "host[3-4]",
}  # fmt: skip


def told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Launch | None:
    for name in ("MASTER_ADDR", "MASTER_PORT", *TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Launch.here()


def test_a_process_that_was_started_by_hand_is_of_no_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told(monkeypatch, {}) is None
    assert told(monkeypatch, SLURM | {"SLURM_JOB_NAME": "interactive"}) is None


@pytest.mark.parametrize(
    ("environment", "name", "restarts"),
    [
        (TORCHRUN, "torchrun_my_run_7", 2),
        (SLURM, "slurm_77", 0),
        (SLURM | {"SLURM_RESTART_COUNT": "1"}, "slurm_77", 1),
        (SLURM | {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}, "slurm_70_3", 0),
        (SLURM | TORCHRUN, "torchrun_my_run_7", 2),
    ],
)
def test_a_launch_has_a_name_that_its_restarts_have_too(
    environment: dict[str, str], name: str, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = told(monkeypatch, environment)
    assert launch is not None
    assert (launch.name, launch.restarts) == (name, restarts)
    assert (launch.rank, launch.world_size, launch.per_node, launch.nodes) == (5, 8, 4, 2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}, "add --rdzv-id NAME"),
        (
            TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"},
            "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        ),
        ({k: v for k, v in SLURM.items() if k != "SLURM_NTASKS_PER_NODE"}, "--ntasks-per-node=8"),
    ],
)
def test_a_launch_that_could_not_be_restarted_is_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=message):
        told(monkeypatch, environment)
