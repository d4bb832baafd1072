"""Verbs that are killed at random moments and called again: whether anything is lost, differs, or is left lying about.

    python benchmarks/crashes.py --kills 100 [--others 20] [--verbs train sample] [--work DIR] [--out benchmarks/crashes.md]

Each trial is a fresh folder. A call is sent SIGKILL, SIGTERM or SIGINT at a moment that is uniform over the time that an
undisturbed call takes, start-up included; then the same call is made again, and in one of three cases killed again, until it is
done. With --warm calls are forked from a process that has loaded all libraries, so that start-up takes no time and every kill
meets work. What then lies in the folder has to be what an undisturbed call leaves: every file, bit by bit, but for the speed in a
log and TensorBoard's own files. `downscale` is three calls at once, of which one or all are killed. Every kill is a line of
DIR/kills.jsonl, and a campaign that was interrupted goes on with the same DIR.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Union

import h5py
import nibabel
import numpy as np
import torch
import yaml
from safetensors import safe_open

from scorefield.cli import main as scorefield
from scorefield.datasets import Digits
from scorefield.foundation.files import write_text
from scorefield.interop import score_sde
from scorefield.interop.pickles import Settings
from scorefield.mri.masks import RandomLines
from scorefield.mri.simulated import simulate
from scorefield.nn import NCSNpp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import tiny  # noqa: E402 - small data and runs are those of the tests
import weather  # noqa: E402
from units.interop import ancestors  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
Call = Union["subprocess.Popen[bytes]", "Forked"]
Starter = Callable[[Sequence[str], Path, Any], Call]
PATIENCE = 900.0  # seconds after which a call hangs
AGAIN = 1 / 3  # of the calls that follow a kill are killed, too
ATTEMPTS = 8  # calls that are not killed, until a trial is lost
SPEED = "samples_per_second"  # in a log, the only column of time
PYTHON = "Fatal Python error: init_"  # which it says where it is interrupted as it starts
LEFT = (".partial", ".parts", ".lock", ".locks", "tmp/")


# ---------------------------------------------------------------------------------------------------------------- cases
@dataclass(frozen=True)
class Case:
    """A call that is killed.

    Attributes:
        name: of its row.
        given: folders of the world that it needs, copied for each trial.
        words: of the command line.
        result: what has to be there afterwards.
        processes: so many equal calls at once.
    """

    name: str
    given: tuple[str, ...]
    words: tuple[str, ...]
    result: str
    processes: int = 1


DOWNSCALE = ("downscale", "climate/run", "test", "--members", "4", "--reach", ".inf", "--steps", "4", "--chunk", "2")
CASES = (
    Case("train", ("recipe",), ("train", "recipe/tiny.yaml", "--out", "run"), "run/checkpoints"),
    Case(
        "sample",
        ("digits",),
        ("sample", "digits/run", "-n", "40", "--steps", "3", "--chunk", "4", "--out", "samples", "--trajectory"),
        "samples/samples.npy",
    ),
    Case(
        "evaluate",
        ("digits",),
        ("evaluate", "digits/run", "-n", "16", "--seeds", "2", "--steps", "3", "--chunk", "4", "--reference", "64"),
        "digits/run/metrics.json",
    ),
    Case(
        "import",
        ("ancestor",),
        ("import", "ancestor/x.pth", "--config", "ancestor/c.json", "--out", "run"),
        "run/config.yaml",
    ),
    Case("downscale to NetCDF", ("climate",), (*DOWNSCALE, "--out", "out.nc"), "out.nc", 3),
    Case("downscale to Zarr", ("climate",), (*DOWNSCALE, "--out", "out.zarr"), "out.zarr", 3),
    Case(
        "reconstruct",
        ("scan",),
        (
            *("reconstruct", "scan/run", "scan/part.h5", "--out", "out.h5", "-n", "2", "--steps", "4"),
            *("--cache", "cache"),
        ),
        "out.h5",
    ),
    Case(
        "restore",
        ("digits",),
        (
            *("restore", "digits/run", "digits/digit.npy", "--task", "superres", "--task.factor", "2", "--degrade"),
            *("--noise", "0.5", "--out", "restored", "-n", "8", "--steps", "4", "--chunk", "2"),
        ),
        "restored/restoring.json",
    ),
)


# ---------------------------------------------------------------------------------------------------------------- world
def make_world(world: Path) -> None:
    """Small data and runs of all domains."""
    often = {"steps: 12": "steps: 24", "batch_size: 16": "batch_size: 8", "checkpoint_every: 5": "checkpoint_every: 4"}
    text = tiny.RECIPE
    for words, other in often.items():
        text = text.replace(words, other)
    tiny.recipe(world / "recipe", text)
    tiny.recipe(world / "digits")
    np.save(world / "digits" / "digit.npy", Digits().load("valid")[0].x.numpy())
    (world / "climate").mkdir()
    fine = weather.save(weather.dataset(48), world / "climate" / "fine.nc")
    (world / "climate" / "recipe.yaml").write_text(yaml.safe_dump(weather.recipe(weather.described(fine))))
    make_scan(world / "scan")
    make_ancestor(world / "ancestor")
    scan = [f"--data.paths=[{world / 'scan' / 't1.nii'}]", "--data.matrix=[40,40]", "--data.valid=[0,1]"]
    scan += ["--model.net.channels=4", "--model.shape=[]", "--model.sampler.steps=1"]
    scan += [f"--train.{word}" for word in ("batch_size=2", "steps=1", "augment=[]", "accelerator=cpu")]
    runs = {"digits": ["tiny.yaml"], "climate": ["recipe.yaml"], "scan": ["brain-t1-small", *scan]}
    for name, words in runs.items():
        must("train", *words, "--out", "run", folder=world / name)
    keep_classifier(world / "digits" / "run")


def must(*words: str, folder: Path) -> None:
    """A call that has to end well."""
    with folder.with_suffix(".txt").open("a") as said:
        if start(words, folder, said).wait() != 0:
            raise SystemExit(f"scorefield {words[0]} failed in {folder}: see {said.name}.")


def keep_classifier(run: Path) -> None:
    """Give a run the classifier of its features, which takes longer to train than all else that an evaluation does."""
    must("evaluate", "run", "-n", "2", "--seeds", "1", "--steps", "1", "--reference", "64", folder=run.parent)
    classifier, kept = next((run / "evaluation").glob("classifier-*")), run.with_name("classifier")
    classifier.rename(kept)
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "best", ignore_errors=True)
    (run / "metrics.json").unlink()
    classifier.parent.mkdir()
    kept.rename(classifier)


def make_scan(folder: Path) -> None:
    """An image volume to train on, and k-space of three slices."""
    folder.mkdir()
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 37)], indexing="ij")
    image = 300.0 * np.where(x**2 + y**2 < 0.7, 1 + 0.5 * np.sin(6 * x), 0)
    nibabel.save(
        nibabel.Nifti1Image(np.repeat(image[..., None], 3, 2).astype(np.float32), np.eye(4)), folder / "t1.nii"
    )
    scans, mask = [simulate(image * (1 + n), coils=4, number=n) for n in range(3)], RandomLines(3.0, 11)((40, 37))
    with h5py.File(folder / "part.h5", "w") as file:
        file["kspace"] = np.stack([scan.kspace * mask for scan in scans])


def make_ancestor(folder: Path) -> None:
    """A checkpoint as score_sde_pytorch writes it."""
    folder.mkdir()
    torch.manual_seed(0)
    weights = ancestors.flat_names(NCSNpp(**score_sde.arguments(Settings(ancestors.SCORE_SDE, "its configuration"))))
    ancestors.save_flat(folder / "x.pth", {"sigmas": torch.linspace(50, 0.01, 20), **weights}, weights)
    ancestors.save_config(folder / "c.json", ancestors.SCORE_SDE)


# ---------------------------------------------------------------------------------------------------------------- calls
def start(words: Sequence[str], folder: Path, said: Any) -> subprocess.Popen[bytes]:
    """A call of the command line in a folder."""
    (folder / "tmp").mkdir(exist_ok=True)
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    command = [sys.executable, "-m", "scorefield", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)


class Forked:
    """A call in a copy of this process, which has all libraries loaded; with what is used here of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], folder: Path, said: Any) -> None:
        self.code: int | None = None
        (folder / "tmp").mkdir(exist_ok=True)
        self.number = os.fork()
        if self.number:
            return
        code = 1
        try:
            os.chdir(folder)
            tempfile.tempdir = str(folder / "tmp")
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            code = scorefield(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, if there is one yet."""
        if self.code is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if number else None
        return self.code

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code, once there is one."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("scorefield", timeout)
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.number, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def load_libraries() -> None:
    """All that calls load as they go."""
    names = ("climate", "functions", "jobs", "mri", "cli.parsing", "metrics.inception", "jobs.report.page")
    for name in (*(f"scorefield.{name}" for name in names), "h5netcdf", "zarr", "dask.array", "sigpy", "xarray"):
        import_module(name)
    for name in ("lightning_fabric", "matplotlib.pyplot", "torch.utils.tensorboard"):
        import_module(name)


def ended(calls: Sequence[Call]) -> list[int | None]:
    """The exit codes as a shell has them, 128 + n for signal n; None for a call that hung."""
    until, codes = time.monotonic() + PATIENCE, []
    for call in calls:
        try:
            code = call.wait(max(0.0, until - time.monotonic()))
            codes.append(code if code >= 0 else 128 - code)
        except subprocess.TimeoutExpired:
            call.kill()
            call.wait()
            codes.append(None)
    return codes


def next_words(case: Case, folder: Path, said: str) -> tuple[str, ...]:
    """The call once more; of train with --resume, where the last one asked for it, or saved something."""
    resumed = case.name == "train" and ("add --resume" in said or (folder / "run" / "config.yaml").is_file())
    return (*case.words, "--resume") if resumed else case.words


@dataclass
class Trial:
    """What became of a folder.

    Attributes:
        kills: a record of each.
        trouble: what was wrong with the calls.
        given: what lay in it before the first.
        done: whether a call ended well.
    """

    kills: list[dict[str, Any]]
    trouble: list[str]
    given: set[str]
    done: bool = False


def one_trial(case: Case, begin: Starter, folder: Path, seconds: float, draw: random.Random, kills: int) -> Trial:
    """Kill a call at most so often, and call again until it is done."""
    trial, words, attempts = Trial([], [], files_in(folder)), case.words, 0
    kill, said = True, folder.with_suffix(".txt")
    while attempts < ATTEMPTS and not trial.done:
        with said.open("a") as file:
            before = said.stat().st_size
            file.write(f"$ scorefield {' '.join(words)}\n")
            file.flush()
            calls = [begin(words, folder, file) for _ in range(case.processes)]
            hit = kill and len(trial.kills) < kills and killed(case, folder, calls, seconds, draw, trial)
            codes = ended(calls) if not hit else trial.kills[-1]["codes"]
        text = said.read_text(errors="replace")[before:]
        if hit:
            judged(trial, text)
        else:
            attempts += 1
            trial.done = codes == [0] * case.processes
            if not trial.done:
                trial.trouble.append(f"exit {codes} undisturbed: {last_line(text)}")
        kill = hit and draw.random() < AGAIN
        words = next_words(case, folder, text)
    return trial


def killed(
    case: Case,
    folder: Path,
    calls: Sequence[Call],
    seconds: float,
    draw: random.Random,
    trial: Trial,
) -> bool:
    """Send a signal to one call or to all, wait for their ends, and keep a record. False where the work was done before."""
    moment, number = draw.uniform(0, seconds), draw.choice(SIGNALS)
    victims = calls if draw.random() < 0.5 else [draw.choice(calls)]
    time.sleep(moment)
    if any(call.poll() is not None for call in victims):
        return False
    found = files_in(folder) - trial.given
    for call in victims:
        call.send_signal(number)
    since = time.monotonic()
    codes = ended(calls)
    record = {"verb": case.name, "signal": number.name, "moment": round(moment, 2), "codes": codes}
    record |= {"at_work": bool(found), "hit": [call in victims for call in calls]}
    trial.kills.append(record | {"seconds_to_end": round(time.monotonic() - since, 2)})
    return True


def files_in(folder: Path) -> set[str]:
    """The names of all files, but for temporary ones of the system."""
    return {name for path in folder.rglob("*") if not (name := str(path.relative_to(folder))).startswith("tmp")}


def judged(trial: Trial, text: str) -> None:
    """What is wrong with how the last kill ended."""
    kill = trial.kills[-1]
    number = 128 + signal.Signals[kill["signal"]]
    for code, hit in zip(kill["codes"], kill["hit"], strict=True):
        if code == 1 and PYTHON in text:  # the interpreter itself, before any of our code
            continue
        if code not in ((number, 0) if hit else (0,)):
            trial.trouble.append(
                f"exit {code} {'after ' + kill['signal'] if hit else 'beside a kill'}: {last_line(text)}"
            )
    kill["traceback"] = "Traceback" in text


def last_line(text: str) -> str:
    """What a call said last."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


# -------------------------------------------------------------------------------------------------------------- results
def contents(folder: Path) -> dict[str, str]:
    """A digest of all that lies in a folder, without TensorBoard's files and what a log says of speed."""
    return {
        str(path.relative_to(folder)) + "/" * path.is_dir(): digest(path)
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith("events.out.tfevents")
    }


def digest(path: Path) -> str:
    """SHA-256 of what a file says; of a folder nothing."""
    if path.is_dir():
        return ""
    if path.suffix == ".safetensors":  # whose metadata have no order
        found = hashlib.sha256()
        with safe_open(path, framework="pt") as file:
            found.update(json.dumps(sorted((file.metadata() or {}).items())).encode())
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name).contiguous()
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
        return found.hexdigest()
    data = path.read_bytes()
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(data.decode(errors="replace")))
        data = json.dumps([{key: value for key, value in row.items() if key != SPEED} for row in rows]).encode()
    return hashlib.sha256(data).hexdigest()


def differences(found: Mapping[str, str], expected: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The names that differ or are missing, and those that are left over."""
    unequal = [name for name in expected if found.get(name) != expected[name]]
    left = [name for name in found if name not in expected]
    left += [name for name in found if name in expected and any(part in name for part in LEFT if part != "tmp/")]
    return unequal, left


def undisturbed(case: Case, begin: Starter, world: Path, folder: Path, repeats: int) -> tuple[float, dict[str, str]]:
    """How long a call takes, and what it leaves."""
    seconds, found = [], []
    for repeat in range(repeats):
        place = fresh(case, world, folder / f"undisturbed-{repeat}")
        since = time.monotonic()
        with place.with_suffix(".txt").open("w") as said:
            codes = ended([begin(case.words, place, said) for _ in range(case.processes)])
        seconds.append(time.monotonic() - since)
        if codes != [0] * case.processes:
            raise SystemExit(f"{case.name} ends with {codes} undisturbed: see {place.with_suffix('.txt')}.")
        found.append(contents(place))
    for other in found[1:]:
        if (wrong := differences(other, found[0])) != ([], []):
            raise SystemExit(f"{case.name} differs from itself, undisturbed: {wrong}")
    return statistics.median(seconds), found[0]


def fresh(case: Case, world: Path, place: Path) -> Path:
    """A folder with what a call needs and nothing else."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    place.with_suffix(".txt").unlink(missing_ok=True)
    for name in case.given:
        shutil.copytree(world / name, place / name)
    return place


def campaign(case: Case, begin: Starter, world: Path, work: Path, kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Records of so many kills, each with what became of its trial."""
    seconds, expected = undisturbed(case, begin, world, work / case.name.replace(" ", "-"), 2)
    print(f"{case.name}: {seconds:.1f} s undisturbed, {len(expected)} files and folders", flush=True)
    made, number = 0, 0
    while made < kills:
        place = fresh(case, world, work / case.name.replace(" ", "-") / f"trial-{number}")
        trial = one_trial(case, begin, place, seconds, random.Random(f"{case.name} {seed} {number}"), kills - made)
        number += 1
        found = contents(place)
        unequal, left = differences(found, expected)
        lost = not trial.done or not (place / case.result).exists()
        trouble = bool(lost or unequal or left or trial.trouble)
        for kill in trial.kills:
            last = kill is trial.kills[-1]
            verdict = {"lost": lost, "unequal": unequal, "leftovers": left, "trouble": trial.trouble} if last else {}
            yield kill | verdict | {"place": str(place)}
        made += len(trial.kills)
        if trouble:
            print(f"  {place}: lost {lost}, unequal {unequal[:4]}, leftovers {left[:4]}, {trial.trouble}", flush=True)
        else:
            shutil.rmtree(place)
            place.with_suffix(".txt").unlink()


def table(kills: Sequence[Mapping[str, Any]]) -> str:
    """A row per verb."""
    lines = [
        "| verb | kills: SIGKILL + SIGTERM + SIGINT | of them at work | lost | unequal | leftovers | exit codes of the killed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in CASES:
        own = [kill for kill in kills if kill["verb"] == case.name]
        if not own:
            continue
        by = Counter(kill["signal"] for kill in own)
        codes = Counter(
            (kill["signal"], code) for kill in own for code, hit in zip(kill["codes"], kill["hit"], strict=True) if hit
        )
        shown = ", ".join(f"{name} {code}: {count}" for (name, code), count in sorted(codes.items(), key=str))
        counts = [sum(bool(kill.get(name)) for kill in own) for name in ("at_work", "lost", "unequal", "leftovers")]
        signals = " + ".join(str(by[number.name]) for number in SIGNALS)
        lines.append(f"| {case.name} | {len(own)}: {signals} | {' | '.join(map(str, counts))} | {shown} |")
    return "\n".join(lines)


PAGE = """# Killed at random moments: `{command}`

A call is killed at a moment uniform over the time that it takes undisturbed, start-up included, and made again until it is
done; then every file is compared bit by bit with those of an undisturbed call. At work: something had been written. Code 0 is a
call that was done when the signal came.

{table}

Calls that ended in another way: {trouble}. Tracebacks: {tracebacks}. From a SIGTERM or SIGINT to the end it took
{median:.1f} s in the median and {slowest:.1f} s at most.

{machine}, Python {python}, {versions}; one thread a process, on a machine that was busy with other work.
"""


def page(kills: Sequence[Mapping[str, Any]], command: str) -> str:
    """What is written for people."""
    heard = [kill["seconds_to_end"] for kill in kills if kill["signal"] != "SIGKILL" and len(kill["codes"]) == 1]
    names = ("torch", "numpy", "safetensors", "h5py", "h5netcdf", "zarr")
    return PAGE.format(
        command=command,
        table=table(kills),
        trouble=sum(len(kill.get("trouble", [])) for kill in kills),
        tracebacks=sum(kill.get("traceback", False) for kill in kills),
        median=statistics.median(heard or [0.0]),
        slowest=max(heard, default=0.0),
        machine=f"{os.cpu_count()} cores of {platform.machine()}, {platform.system()}",
        python=platform.python_version(),
        versions=", ".join(f"{name} {version(name)}" for name in names),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of train")
    parser.add_argument("--others", type=int, default=20, help="of each other verb")
    parser.add_argument("--verbs", nargs="+", default=[case.name for case in CASES], help="names of rows of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", action="store_true", help="without start-up")
    parser.add_argument("--work", type=Path, default=None, help="folder for trials; those that went wrong stay there")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    if unknown := set(arguments.verbs) - {case.name for case in CASES}:
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(case.name for case in CASES)}.")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # else a shell's background jobs leave it ignored in what they start
    work = (arguments.work or Path(tempfile.mkdtemp(prefix="crashes-"))).absolute()
    print(f"in {work}", flush=True)
    world, record = work / "world", work / "kills.jsonl"
    if not (world / "complete").exists():
        shutil.rmtree(world, ignore_errors=True)
        make_world(world)
        (world / "complete").touch()
    begin: Starter = start
    if arguments.warm:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
        load_libraries()
        begin = Forked
    kills = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    for case in (case for case in CASES if case.name in arguments.verbs):
        done = sum(kill["verb"] == case.name for kill in kills)
        wanted = (arguments.kills if case.name == "train" else arguments.others) - done
        for kill in campaign(case, begin, world, work, wanted, arguments.seed + done) if wanted > 0 else ():
            kills.append(kill)
            with record.open("a") as file:
                file.write(json.dumps(kill) + "\n")
    print(table(kills))
    command = (
        f"python benchmarks/crashes.py --kills {arguments.kills} --others {arguments.others}"
        + " --warm" * arguments.warm
    )
    if arguments.out:
        write_text(arguments.out, page(kills, command))


if __name__ == "__main__":
    main()
