"""A job whose workers keep parts of the optimizer's state: nobody can tell afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout_s(300)]

IN_PARTS = "parallel.shard_optimizer=true"


def optimizer_state(run) -> bytes:
    return (run.commits[-1] / "optimizer.safetensors").read_bytes()


def test_equal_weights_and_checkpoints_in_parts_or_whole(dg, short, tmp_path: Path) -> None:
    for ranks in (2, 3):
        settings = [*short.job, IN_PARTS, "parallel.overlap=true", "parallel.check_every_steps=7"]
        settings.append("parallel.bucket_mib=0.01")
        run = dg.train(tmp_path / f"{ranks}", *settings, ranks=ranks)
        assert run.sha256 == short.sha256
        assert run.metrics == short.metrics
        assert run.saved_sha256() == short.saved_sha256()
        assert optimizer_state(run) == optimizer_state(short)
        assert [path.name for path in run.commits] == [path.name for path in short.commits]


def test_a_run_goes_on_with_other_workers_and_other_parts(dg, short, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = dg.train(tmp_path / "whole", *short.job, "train.epochs=3")
    dg.train(folder, *short.job, IN_PARTS, ranks=3)
    again = dg.train(
        folder, *short.job, "train.epochs=3", IN_PARTS, ranks=2, options=["--resume", "auto"]
    )
    assert again.sha256 == whole.sha256
    assert optimizer_state(again) == optimizer_state(whole)
