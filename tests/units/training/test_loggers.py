"""Logs beside the tables: what they hold is what the tables hold, pictures and configuration included, over a resumed run."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tiny
from scorefield.foundation.errors import InputError
from scorefield.training.log import read_table
from scorefield.training.loggers import MLflow, WandB

Figures = dict[tuple[str, int], float]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)


def of_tables(run: Path) -> Figures:
    """Every figure of the run's tables by name and step."""
    return {
        (f"{group}/{name}", int(row["step"])): float(value)
        for group in ("train", "valid")
        for row in read_table(run / "logs" / f"{group}.csv")
        for name, value in row.items()
        if name not in ("step", "samples")
    }


def agree(found: Figures, run: Path) -> None:
    expected = of_tables(run)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6, nan_ok=True), key


def train_in_two(folder: Path, loggers: str) -> Path:
    """A run of twelve steps that ended at six, and was given six more."""
    run = folder / "a run"
    tiny.train(folder, run, train__steps=6, train__loggers=loggers)
    tiny.train(folder, run, resume=True, train__steps=12, train__loggers=loggers)
    return run


# --------------------------------------------------------------------------------------------------------- TensorBoard
def test_tensorboard_has_the_figures_the_pictures_and_the_configuration(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train_in_two(tmp_path, "[TensorBoard]")
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    names = events.Tags()["scalars"]
    agree({(name, one.step): one.value for name in names for one in events.Scalars(name)}, run)
    assert [image.step for image in events.Images("samples")] == [6, 12]
    shown = events.Tensors("configuration/text_summary")
    assert len(shown) == 1 and "channels: 8" in shown[0].tensor_proto.string_val[0].decode()


def test_without_loggers_there_are_the_tables(tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=2, train__loggers="[]")
    assert {path.name for path in (tmp_path / "run" / "logs").iterdir()} == {"train.csv", "valid.csv"}


# ---------------------------------------------------------------------------------------------------- Weights & Biases
def entries(path: Path) -> Iterator[bytes]:
    """What W&B's file of an offline run holds, in LevelDB's format: blocks of 32 KiB of parts (crc, length, kind)."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield whole
            whole = b""


def records(run: Path) -> list[dict[str, object]]:
    """The rows that W&B keeps of an offline run, in order, each with the identity of its run; first its configuration."""
    from wandb.proto import wandb_internal_pb2

    found: list[dict[str, object]] = []
    for path in sorted((run / "logs" / "wandb").glob("offline-run-*/*.wandb")):
        of_run: dict[str, object] = {}
        for data in entries(path):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                of_run = {"run_id": record.run.run_id, "run_name": record.run.display_name}
            items = {"config": record.config.update, "history": record.history.item}.get(kind, ())
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            found += [of_run | values] if values else []
    return found


def test_wandb_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'scorefield[wandb]'")
    run = train_in_two(tmp_path, '[{"class_path": "WandB", "init_args": {"mode": "offline"}}]')
    rows = records(run)
    assert len({row["run_id"] for row in rows}) == 1 and {row["run_name"] for row in rows} == {"a run"}
    figures = {
        (name, int(str(row["step"]))): float(str(value))
        for row in rows
        if "step" in row
        for name, value in row.items()
        if name.startswith(("train/", "valid/"))
    }
    agree(figures, run)
    pictures = [row for row in rows if "samples/_type" in row or "samples" in row]
    assert [row["step"] for row in pictures] == [6, 12]
    assert len(list(run.glob("logs/wandb/offline-run-*/files/media/images/*.png"))) == 2
    configured = [row for row in rows if "model" in row and "step" not in row]
    assert [row["train"]["steps"] for row in configured] == [6, 12]  # pyright: ignore


def test_wandb_without_an_account_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'scorefield[wandb]'")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match="wandb login"):
        tiny.train(
            tmp_path, tmp_path / "run", train__loggers='[{"class_path": "WandB", "init_args": {"mode": "online"}}]'
        )
    tiny.train(tmp_path, tmp_path / "run", train__steps=1)  # what was begun is no run yet


# -------------------------------------------------------------------------------------------------------------- MLflow
@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'scorefield[mlflow]'")
    from mlflow.tracking import MlflowClient

    run = train_in_two(tmp_path, "[MLflow]")
    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'logs' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("scorefield").experiment_id])
    assert found.info.run_name == "a run" and found.info.status == "FINISHED"
    history = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    agree({(name, one.step): one.value for name, each in history.items() for one in each}, run)
    assert found.data.params["model.net.init_args.channels"] == "8"
    assert [one.path for one in client.list_artifacts(found.info.run_id, "samples")] == [
        f"samples/step-{step:08d}.png" for step in (6, 12)
    ]
    stored = yaml.safe_load(Path(client.download_artifacts(found.info.run_id, "config.yaml")).read_text())
    assert stored == yaml.safe_load((run / "config.yaml").read_text()) and stored["train"]["steps"] == 12


def test_mlflow_that_is_not_there_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'scorefield[mlflow]'")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"MLflow at http://127.0.0.1:9"):
        tiny.train(tmp_path, tmp_path / "run", train__loggers="[MLflow]")


@pytest.mark.slow
def test_a_server_that_goes_away_ends_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'scorefield[mlflow]'")
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the files of a database that is named
    writer = MLflow(uri=f"sqlite:///{tmp_path / 'a.db'}").open(tmp_path, 0, {"a": 1})
    writer.run = "none-such"  # pyright: ignore[reportAttributeAccessIssue] - as after a database was emptied
    with caplog.at_level("WARNING", logger="scorefield"):
        writer.figures(1, {"train/loss": 1.0, "train/norm": 1.0})
        writer.close(True)
    said = [record.getMessage() for record in caplog.records if record.name == "scorefield"]
    assert len(said) == 1 and "training goes on" in said[0]


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("name", ["WandB", "MLflow"])
def test_a_missing_library_is_told_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "mlflow", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"scorefield\[{name.lower()}\]"):
        tiny.train(tmp_path, tmp_path / "run", train__loggers=f"[{name}]")
    assert not (tmp_path / "run").exists()


def test_an_identity_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'scorefield[wandb]'")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "wandb.json").write_text("[]")
    with pytest.raises(InputError, match=r"wandb\.json"):
        WandB(mode="offline").open(tmp_path, 5, {})
