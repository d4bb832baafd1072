"""Sampling as a job: killed, interrupted, shared or out of space, the files are the same in the end, byte for byte."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import launched
import scorefield
import tiny
from often import seldom
from scorefield.cli import main
from scorefield.data import Images
from scorefield.data.picture import GAP, SMALL, grid
from scorefield.foundation.arithmetic import Machine, Seconds
from scorefield.foundation.errors import InputError
from scorefield.foundation.locks import ChunkLocks
from scorefield.jobs import options
from scorefield.jobs.draws import Draws
from scorefield.jobs.options import own_device
from scorefield.jobs.outputs import Pixels, write_array, write_pictures
from scorefield.jobs.sample import Sample
from scorefield.run.loading import LoadedCheckpoint
from scorefield.run.runner import Pieces, parts_of

resource = pytest.importorskip("resource")  # POSIX: there are no such locks, signals and limits elsewhere

PNG = ("--png", "--range", "0", "16")
Whole = tuple[tuple[str, ...], dict[str, bytes]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampling")
    tiny.train(folder, folder / "run", train__steps=4, train__checkpoint_every=1, train__validate_every=1)
    return folder / "run"


LONG = 40  # samples: 20 chunks, so that a job is not over when a signal comes


def job(run: Path, out: Path, *more: str, n: int = 10, steps: int = 3) -> list[str]:
    return ["sample", str(run), "-n", str(n), "--chunk", "2", "--steps", str(steps), "--out", str(out), *more]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a result with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(arguments: list[str], before: Callable[[], object] = lambda: None) -> BaseProcess:
    """The command line in a process of its own."""

    def work() -> None:
        # a shell has what it starts in the background ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        before()
        sys.exit(main(arguments))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600  # no expectation: what hangs is ended
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module", params=[(), seldom(PNG)], ids=["array", "png"])
def whole(request: pytest.FixtureRequest, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A job that nothing disturbed: the form of its output, and its files."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(job(run, out, *request.param, n=LONG)) == 0
    return request.param, content(out)


def pieces(out: Path) -> list[Path]:
    """The pieces of a job that is not complete."""
    return sorted(parts_of(out).glob("piece-*"))


def cut(arguments: list[str], out: Path, number: signal.Signals) -> int | None:
    """Start the job, send a signal once new pieces are there, and return the exit code."""
    before = len(pieces(out))
    process = start(arguments)
    wait_for(lambda: len(pieces(out)) > before + 2)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


@pytest.mark.usefixtures("unchecked")
def test_a_job_that_is_cut_is_completed_to_the_same_bytes(whole: Whole, run: Path, tmp_path: Path) -> None:
    form, files = whole
    out = tmp_path / "out"
    arguments = job(run, out, *form, n=LONG)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        assert cut(arguments, out, number) == code
        assert pieces(out) and not out.exists()  # it was in the middle
    assert main(arguments) == 0
    assert content(out) == files and not parts_of(out).exists()


def test_ctrl_c_is_told_from_a_termination(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cut(job(run, out, n=400), out, signal.SIGINT) == 130  # so many that it is not over when the signal comes
    assert "call it again to go on" in capfd.readouterr().err
    assert not any(path.name.endswith(".partial") for path in parts_of(out).iterdir())


@pytest.mark.parametrize(
    ("whole", "each"),
    [((), launched.ranks(2)), seldom((), launched.array(3)), ((), [{}, {}]), seldom(PNG, [{}, {}])],
    ids=["ranks", "elements", "unnumbered", "unnumbered png"],
    indirect=["whole"],
)
def test_processes_share_a_job_and_give_the_same_bytes(
    each: list[launched.Numbers], whole: Whole, run: Path, tmp_path: Path
) -> None:
    form, files = whole
    arguments = job(run, tmp_path / "there" / "out", *form, n=LONG)
    assert launched.together(arguments, each, tmp_path / "said") == list(range(LONG // 2))  # each piece once
    assert content(tmp_path / "there" / "out") == files
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["out"]
    assert launched.together(arguments, each, tmp_path / "again") == []


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_a_compiled_network_draws_the_same(run: Path, tmp_path: Path) -> None:
    """One size is compiled: chunks are whole, the last one, too."""
    plain = Sample(run=run, n=5, chunk=2, steps=2, out=tmp_path / "plain").run()
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = Sample(run=run, n=5, chunk=2, steps=2, out=tmp_path / "compiled", compile=True).run()
    assert plain is not None and found is not None
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [()], ids=["array"], indirect=True)
def test_workers_of_dask_share_a_job_as_the_documentation_says(whole: Whole, run: Path, tmp_path: Path) -> None:
    dask = pytest.importorskip("dask")
    out, text = tmp_path / "out", (Path(__file__).parents[3] / "docs" / "speed.md").read_text()
    code = textwrap.dedent(text[text.index("    import os, subprocess, dask") : text.index("    dask.compute")])
    given: dict[str, Any] = {"__name__": "__main__"}
    documented = '"downscale", "RUN", "coarse.nc", "--out", "fine.zarr"'
    assert documented in code
    ours = ", ".join(f'"{word}"' for word in job(run, out, *whole[0], n=LONG))
    exec(code.replace(f'"scorefield", {documented}', f'"{sys.executable}", "-m", "scorefield", {ours}'), given)
    dask.compute(*(given["share"](number, 2) for number in range(2)), scheduler="processes")
    assert content(out) == whole[1]


@pytest.mark.parametrize("whole", [()], ids=["array"], indirect=True)
@pytest.mark.parametrize("killed", [seldom(1), 3])
@pytest.mark.usefixtures("unchecked")
def test_what_killed_ranks_leave_is_made_by_the_others_or_by_the_same_call(
    killed: int, whole: Whole, run: Path, tmp_path: Path
) -> None:
    form, files = whole
    out, each = tmp_path / "out", launched.ranks(3)
    arguments, said = job(run, out, *form, n=LONG), [tmp_path / f"said-{rank}" for rank in range(3)]
    processes = [launched.start(arguments, numbers, file) for numbers, file in zip(each, said, strict=True)]
    wait_for(lambda: len(pieces(out)) > 2)
    for process in processes[:killed]:
        process.kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * killed + [0] * (3 - killed)
    assert out.exists() == (killed < 3)
    kept = len(pieces(out))
    again = launched.together(arguments, each, tmp_path / "again")
    assert len(again) == (LONG // 2 - kept if killed == 3 else 0)
    assert content(out) == files and not parts_of(out).exists()
    twice = [n for n in range(LONG // 2) if [*launched.computed(said), *again].count(n) > 1]
    assert len(twice) <= killed  # at most what each was writing when it was killed


@pytest.mark.slow
@pytest.mark.parametrize("whole", [()], ids=["array"], indirect=True)
def test_three_processes_of_torchrun_end_well_and_speak_once(whole: Whole, run: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    arguments = job(run, tmp_path / "out", "--trajectory", n=LONG)
    command = [*launch, "-m", "scorefield", *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env=environment())
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count(f"{LONG} samples in {tmp_path / 'out'}") == 1
    found = content(tmp_path / "out")
    assert found.pop("trajectory.png") and found == whole[1]
    refused = subprocess.run(
        [*command, "--step", "999"], check=False, capture_output=True, text=True, timeout=600, env=environment()
    )
    assert refused.returncode != 0 and "error:" in refused.stderr  # and none of the others waits


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(scorefield.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


HOLDER = """
import sys, time
from pathlib import Path
from scorefield.foundation.locks import ChunkLocks
with ChunkLocks(Path(sys.argv[1])).hold(1, wait=False) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def test_no_two_processes_draw_a_chunk_and_that_of_a_dead_one_is_taken_over(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", HOLDER, str(parts_of(out) / ".locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        worker = threading.Thread(target=main, args=(job(run, out),))
        worker.start()
        wait_for(lambda: len(pieces(out)) == 4)
        time.sleep(0.1)
        assert worker.is_alive() and [int(piece.name[6:12]) for piece in pieces(out)] == [0, 2, 3, 4]  # not the other's
        holder.kill()
        worker.join()
    assert np.load(out / "samples.npy").shape == (10, 1, 8, 8)


def test_a_claim_is_held_once_and_given_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "claims")]
    claims = ChunkLocks(tmp_path / "claims")
    with claims.hold(1, wait=False) as ours:
        assert ours
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "False\n"
            other.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        with claims.hold(1, wait=False) as ours, claims.hold(2, wait=False) as next_one:
            assert not ours and next_one
        other.kill()


def test_without_locks_a_process_may_find_the_work_done_under_its_hands(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it puts the pieces together, another has done so and deleted them: the result is there, and that is no error."""
    assemble, out = Draws.assemble, tmp_path / "out"

    def late(self: Draws, found: Pieces, temporary: Path) -> None:
        assemble(self, found, out)
        shutil.rmtree(found.folder)
        assemble(self, found, temporary)

    monkeypatch.setattr("scorefield.foundation.locks.fcntl", None)
    monkeypatch.setattr(Draws, "assemble", late)
    assert main(job(run, out)) == 0
    assert np.load(out / "samples.npy").shape == (10, 1, 8, 8)


def test_each_launched_process_begins_with_its_own_share(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = Pieces.write
    monkeypatch.setattr(
        Pieces, "write", lambda self, number, piece: (written.append(number), write(self, number, piece))
    )
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(job(run, tmp_path / "out")) == 0
    assert written == [1, 3, 4, 2, 0]
    assert [own_device("cuda", rank, 2) for rank in range(4)] == ["cuda", "cuda:1", "cuda:0", "cuda:1"]
    assert own_device("cpu", 1, 2) == "cpu" and own_device("cuda:0", 1, 2) == "cuda:0"


@pytest.mark.parametrize("limit", [600, 2600])  # bytes of a file: less than a part has, less than the result has
def test_a_full_disk_is_one_line_and_the_job_goes_on_afterwards(
    limit: int, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = job(run, tmp_path / "out")
    capfd.readouterr()
    process = start(arguments, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    process.join()
    said = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert process.exitcode == 2 and len(said) == 1 and "free some space" in said[0] and "call again" in said[0]
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*.partial"))
    assert main(arguments) == 0 and (tmp_path / "out" / "samples.npy").stat().st_size > limit


def test_putting_samples_together_takes_no_memory(tmp_path: Path) -> None:
    shape, size = (64, 1, 512, 512), 4  # 64 MiB in parts of 4
    tracemalloc.start()
    write_array(tmp_path / "x.npy", shape, (np.full((size, *shape[1:]), at, np.float32) for at in range(0, 64, size)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20
    values = np.repeat(np.arange(0, 64, size, dtype=np.float32), size)
    np.save(tmp_path / "oracle.npy", np.broadcast_to(values[:, None, None, None], shape))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "oracle.npy").read_bytes()


def test_a_verb_is_changed_without_its_run_again(run: Path, tmp_path: Path) -> None:
    verb = Sample(run=run, n=3, out=tmp_path / "a", best="loss")
    other = replace(verb, n=4)
    assert (other.folder, other.n, other.best) == (run, 4, "loss") and replace(other, n=3) == verb
    assert replace(verb, run=tmp_path).folder == tmp_path
    with pytest.raises(InputError, match="run is missing"):
        Sample(n=3, out=tmp_path / "a")


def test_python_and_the_command_line_do_the_same(run: Path, tmp_path: Path) -> None:
    assert main(job(run, tmp_path / "out")) == 0
    x = Sample(run=run, n=10, chunk=2, steps=3, out=tmp_path / "python").run()
    assert x is not None and x.shape == (10, 1, 8, 8)
    assert content(tmp_path / "out") == content(tmp_path / "python")


# ------------------------------------------------------------------------------------------------------------ pictures
def test_pictures_hold_the_values_of_the_array(run: Path, tmp_path: Path) -> None:
    assert main(job(run, tmp_path / "array")) == 0
    assert main(job(run, tmp_path / "pictures", *PNG)) == 0
    x = np.load(tmp_path / "array" / "samples.npy")
    fields = Images(tmp_path / "pictures" / "png", valid=1).load("train")  # the toolkit reads what it writes
    assert len(fields) == 9 and fields[0].x.shape == (1, 8, 8)
    for index in range(10):
        pixels = np.asarray(Image.open(tmp_path / "pictures" / "png" / f"{index:06d}.png"))
        assert pixels.dtype == np.uint8
        expected = (x[index, 0].astype(np.float64) / 16 * 255).clip(0, 255)
        assert np.abs(pixels - expected).max() <= 0.5 + 1e-9


def test_wide_ranges_and_colours_are_kept(tmp_path: Path) -> None:
    deep = np.array([[[[-5.0, 0.0, 1000.4, 65535.0, 70000.0]]]])
    write_pictures(tmp_path / "deep", 1, [deep], Pixels(0, 65535))
    assert np.asarray(Image.open(tmp_path / "deep" / "000000.png")).tolist() == [[0, 0, 1000, 65535, 65535]]
    colour = np.arange(18.0).reshape(1, 3, 2, 3) * 10
    write_pictures(tmp_path / "colour", 1, [colour], Pixels())
    assert np.array_equal(np.moveaxis(np.asarray(Image.open(tmp_path / "colour" / "000000.png")), -1, 0), colour[0])


def test_what_no_picture_can_hold_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape in ((2, 8, 8), (1, 8), (1, 8, 8, 8)):
        with pytest.raises(InputError, match="no grey or colour"):
            Pixels().check(shape)
    with pytest.raises(InputError, match="8 bits"):
        Pixels(0, 65535).check((3, 8, 8))
    for wrong in ("16 0", "0 0", "nan 1", "0 inf", "-inf 0"):
        assert main(job(run, tmp_path / "out", "--png", "--range", *wrong.split())) == 2
    assert main(job(run, tmp_path / "out", "--range", "0", "16")) == 2
    assert "add --png" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_range_that_the_samples_contradict_is_not_guessed() -> None:
    x = torch.rand(4, 1, 8, 8)
    for values in (x, x * 16, x * 65535, x * 600 - 300):
        with pytest.raises(InputError, match="--range BLACK WHITE"):
            Pixels(certain=False).check_range(values)
    Pixels(certain=False).check_range(x * 280 - 20)
    Pixels(0, 255).check_range(x)


def test_another_form_is_another_job(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(job(run, tmp_path / "array")) == 0 and main(job(run, tmp_path / "pictures", *PNG)) == 0
    for out, form in (("array", PNG), ("pictures", ()), ("pictures", ("--png", "--range", "0", "17"))):
        assert main(job(run, tmp_path / out, *form)) == 2
        assert "give another --out" in capsys.readouterr().err


def test_the_trajectory_ends_in_the_samples(run: Path, tmp_path: Path) -> None:
    assert main(job(run, tmp_path / "out", "--trajectory", n=6, steps=12)) == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "trajectory.png")).astype(int)
    step = SMALL + GAP
    tiles = picture[GAP:, GAP:].repeat(1, axis=0)
    rows, columns = tiles.shape[0] // step, tiles.shape[1] // step
    assert (rows, columns) == (6, 9)
    cut = [[tiles[r * step : r * step + SMALL, c * step : c * step + SMALL, 0] for c in range(9)] for r in range(6)]
    x = torch.from_numpy(np.load(tmp_path / "out" / "samples.npy"))
    drawn = grid(x, columns=1).astype(int)[GAP:, GAP:]
    for row in range(6):
        sample = drawn[row * step : row * step + SMALL, :SMALL, 0]
        distance = [float(np.square(tile - sample).mean()) for tile in cut[row]]
        assert np.abs(cut[row][-1] - sample).max() <= 1  # another chunk size: equal to 1e-4
        assert distance[0] > 10 * distance[-2]


def test_bfloat16_draws_where_training_allowed_it_and_the_machine_pays_for_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that asked for float32 is drawn in float32; one that left it open in what a trial chooses, which the job records."""

    def drawn(name: str, **more: object) -> tuple[torch.Tensor, str | None]:
        found = Sample(run=run, n=2, steps=2, out=tmp_path / name, **more).run()
        return found, json.loads((tmp_path / name / "job.json").read_text()).get("precision")

    monkeypatch.setattr(options, "machine_of", lambda _: Machine("new", True))
    monkeypatch.setattr(options, "timed", lambda *_: Seconds(2.0, 1.0))
    full, said = drawn("asked")
    assert said is None
    config = LoadedCheckpoint.config.fget
    left_open = property(lambda self: config(self) | {"train": {"precision": "auto"}})
    monkeypatch.setattr(LoadedCheckpoint, "config", left_open)
    low, said = drawn("open")
    assert said == "bf16-mixed" and 0 < (low - full).abs().max() < 0.1 * full.std()
    assert torch.equal(drawn("full", precision="32-true")[0], full)
    monkeypatch.setattr(options, "machine_of", lambda _: Machine("old", False))
    assert drawn("old")[1] is None
