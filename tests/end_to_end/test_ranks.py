"""Several processes train one model: one folder, one configuration, every pixel counted once."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from geo_seg.checkpoints import checkpoint
from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.windows.loader import WindowLoader
from geo_seg.data.windows.sampler import RandomWindowSampler
from geo_seg.metrics.scores import segmentation_scores
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.runtime.lock import is_unlocked
from geo_seg.runtime.ranks import strip_rank_env
from geo_seg.tiling import Window
from tests.conftest import REPOSITORY, Run, small_overrides

TRAIN = str(REPOSITORY / "train.py")
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32"]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start_ranks(
    folder: Path, environments: list[dict[str, str]], commands: list[list[str]]
) -> list[tuple[int, str, str]]:
    """Starts train.py once per rank, as a cluster's launcher does; gives exit codes, stdout and stderr."""
    clean = strip_rank_env(os.environ)
    processes = [
        subprocess.Popen(
            [sys.executable, TRAIN, *command],
            cwd=folder,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment, command in zip(environments, commands, strict=True)
    ]
    return [
        (process.wait(), out, err)
        for process, (out, err) in [(p, p.communicate(timeout=300)) for p in processes]
    ]


def only_folder(root: Path) -> Path:
    """The single run folder below a folder; there must be no other, nor a second log."""
    (folder,) = {p.parent for p in root.rglob("run.json")}
    assert [p.name for p in root.rglob("*.log")] == ["train.log"]
    assert [p.name for p in root.rglob(".hydra")] == [".hydra"]
    return folder


def counted_by_one_process(folder: Path, config: DatasetConfig, split: str) -> np.ndarray:
    """The confusion matrix of a run's best checkpoint, counted pixel by pixel."""
    data = SceneDataModule(config, 0)
    predictor = ScenePredictor(checkpoint.load_checkpoint(folder), config, torch.device("cpu"), "fp32", print)
    matrix = np.zeros((3, 3), int)
    for number, scene in enumerate(data.scenes[split]):
        whole = Window(0, 0, scene.image.height, scene.image.width)
        labels = data.reader(split).read((number, whole)).labels
        for label, guess in zip(labels.ravel(), predictor.classes(scene, whole).ravel(), strict=True):
            if label != 255:
                matrix[label, guess] += 1
    return matrix


def assert_complete(folder: Path, small: DatasetConfig) -> None:
    """Two processes have given the scores that one process gives on the same weights."""
    found = json.loads((folder / "metrics.json").read_text())
    for split in ("val", "test"):
        matrix = counted_by_one_process(folder, small, split)
        assert np.abs(np.array(found[split]["confusion"]) - matrix).sum() <= 4  # ties of the last bit
        assert found[split]["pixels"] == matrix.sum()
        expected = segmentation_scores(torch.from_numpy(matrix), ["low", "middle", "high"]).miou
        assert found[split]["miou"] == pytest.approx(expected, abs=1e-3)


def test_the_ranks_of_an_epoch_share_the_samples_that_one_process_takes_in_the_same_step(
    small: DatasetConfig,
) -> None:
    data = SceneDataModule(small, 0)
    windows = RandomWindowSampler(
        data.scenes["train"], data.index["train"], "valid", small.window, 13, seed=0
    )

    def batches(rank: int, world: int, size: int) -> list[list[list[int]]]:
        seen = WindowLoader(
            data.reader("train"),
            windows,
            size=13,
            window=small.window,
            batch_size=size,
            drop_last=True,
            threads=1,
            epoch=lambda: 0,
            rank=rank,
            world_size=world,
        )
        return [batch["place"].tolist() for batch in seen]

    one = batches(0, 1, 4)
    two = zip(batches(0, 2, 2), batches(1, 2, 2), strict=True)
    assert [sorted(step) for step in one] == [sorted(a + b) for a, b in two]


def test_a_sweep_is_refused_where_several_processes_would_each_run_it(run: Run, small_root: Path) -> None:
    result = subprocess.run(
        [sys.executable, TRAIN, "-m", *small_overrides(small_root), "hydra.sweep.dir=sweeps/own"],
        cwd=small_root,
        env=strip_rank_env(os.environ) | {"RANK": "0", "WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "a sweep is started by one process" in result.stderr


@pytest.mark.slow
def test_ranks_that_were_given_other_configurations_end_before_the_first_step(
    small_root: Path, tmp_path: Path
) -> None:
    port = free_port()
    environments = [
        {
            "RANK": str(r),
            "LOCAL_RANK": str(r),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        | {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
        for r in range(2)
    ]
    commands = [[*small_overrides(small_root), *TWO, f"seed={r}"] for r in range(2)]
    for code, _, said in start_ranks(tmp_path, environments, commands):
        assert code == 2
        assert "rank 1 was given another configuration than rank 0" in said
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.slow
def test_a_single_command_with_two_devices_leaves_one_run(
    run: Run, small: DatasetConfig, small_root: Path, tmp_path: Path
) -> None:
    result = run("train.py", *small_overrides(small_root), *TWO)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mean IoU") == 1
    assert_complete(only_folder(tmp_path), small)


@pytest.mark.slow
def test_torchrun_leaves_one_run(small: DatasetConfig, small_root: Path, tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", TRAIN]
    result = subprocess.run(
        [sys.executable, *command, *small_overrides(small_root), *TWO],
        cwd=tmp_path,
        env=strip_rank_env(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mean IoU") == 1
    assert_complete(only_folder(tmp_path), small)


@pytest.mark.slow
def test_the_tasks_of_a_slurm_job_leave_one_run(
    small: DatasetConfig, small_root: Path, tmp_path: Path
) -> None:
    shared = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_TASKS": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    environments = [shared | {"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)} for r in range(2)]
    for code, _, said in start_ranks(tmp_path, environments, [[*small_overrides(small_root), *TWO]] * 2):
        assert code == 0, said
    assert_complete(only_folder(tmp_path), small)


@pytest.mark.slow
def test_a_sweep_mixes_runs_of_one_and_of_two_processes(
    run: Run, small: DatasetConfig, small_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "trainer").mkdir(parents=True)
    (tmp_path / "mine" / "trainer" / "two.yaml").write_text("defaults: [ddp]\naccelerator: cpu\ndevices: 2\n")
    mine = ["--config-dir", str(tmp_path / "mine"), "-m", "trainer=two,cpu", "trainer.precision=32"]
    short = [o for o in small_overrides(small_root) if not o.startswith("trainer.accelerator")]
    result = run("train.py", *mine, *short, "hydra.sweep.dir=s")
    assert result.returncode == 0, result.stderr
    names = ["0_unet_weighted_cross_entropy", "1_unet_weighted_cross_entropy"]
    assert sorted(p.parent.name for p in tmp_path.rglob("run.json")) == names
    assert_complete(tmp_path / "s" / names[0], small)
    starts = [(tmp_path / "s" / name / "run.log").read_text().count("classes in train") for name in names]
    assert starts == [1, 1]


@pytest.mark.slow
def test_every_trial_of_a_search_is_trained_by_both_processes_as_one(
    run: Run, small: DatasetConfig, small_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    search = [
        "sweeper=optuna",
        "hydra.sweeper.trials=2",
        "optimizer.lr=interval(1e-4,1e-2)",
        "hydra.sweep.dir=s",
    ]
    result = run("train.py", "-m", *small_overrides(small_root), *TWO, *search)
    assert result.returncode == 0, result.stderr
    runs = sorted(p.parent for p in tmp_path.rglob("run.json"))
    assert [folder.parent.name for folder in runs] == ["s", "s"]
    for folder in runs:
        assert_complete(folder, small)


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [True, False], ids=["torchrun", "rank 0"])
@pytest.mark.fault("ranks", "processes outlive the parent that was killed")
def test_ranks_end_within_a_minute_of_what_started_them(
    small_root: Path, tmp_path: Path, torchrun: bool
) -> None:
    ranks = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command = [sys.executable, *(ranks if torchrun else []), TRAIN, *small_overrides(small_root), *TWO]
    long = ["trainer.max_epochs=1000", "trainer.limit_train_batches=4", "hydra.run.dir=run"]
    parent = subprocess.Popen(
        [*command, *long],
        cwd=tmp_path,
        env=strip_rank_env(os.environ),
        stdout=subprocess.PIPE,  # it ends when the last process that has it has ended
        stderr=subprocess.STDOUT,
    )
    table, until = tmp_path / "run" / "metrics.csv", time.monotonic() + 240
    while not table.exists() and time.monotonic() < until:
        time.sleep(0.1)
    parent.kill()
    parent.communicate(timeout=60)
    assert table.exists()
    assert is_unlocked(tmp_path / "run")
