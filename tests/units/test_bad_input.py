"""Whatever is wrong with a call: exit code 2, one line of at most 300 characters, and not a file changed or left behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from often import each
from scorefield.cli import main
from scorefield.training import checkpoint as checkpoints

BEFORE = Path(__file__).parents[1] / "cases" / "before"
LONGEST = 300

# Each line is a call, cut into words as a shell does; $RUN, $NEW and files are in the folder that `world` makes. The lists are by
# verb: a call that would be right, and what is wrong in each of the others, which is put behind it.
OPTIONS = {
    "sample digits --out new -n 2 --steps 2": """
        -n 0 | -n -1 | -n 1.5 | -n x | -n 999999999999999 | -n nan | -n | --seed -1 | --seed x | --seed 1e3 |
        --seed 100000000000000000000000 | --steps 0 | --steps x | --steps 2.5 | --steps 1000000000000 |
        --chunk 0 | --chunk -4 | --chunk x | --label 3 | --label x | --label -7 | --guidance 2 | --guidance -1 |
        --guidance nan | --guidance inf | --classifier gone | --classifier digits | --resolution 0 | --resolution -4 |
        --resolution x | --beyond x | --given x | --given valid | --png --range 1 | --png --range 1 1 |
        --png --range x y | --png --range nan 1 | --sampler x | --sampler Heunn | --sampler digits.npy | --sampler os.system |
        --sampler DDIM --sampler.eta -1 | --sampler DDIM --sampler.eta x | --sampler DDIM --sampler.etta 1 | --sampler.eta |
        --grid x | --grid EDMGrid --grid.rho x | --grid EDMGrid --grid.rhoo 1 | --corrector x |
        --corrector Langevin --corrector.snr -1 | --corrector Langevin --corrector.snr x | --corrector.snr 1 |
        --corrector Langevin --corrector.repeats -1 | --denoise x | --correct-first x | --ema x | --device nope |
        --device cuda:99 | --device x:y | --device "" | --step 7 | --step -1 | --step x | --best x | --best loss:up |
        --best loss --step 3 | --trust | --nonsense | --nonsense 3 | --n 3 | more words | --out digits | --out digits.npy |
        --out digits.npy/new | --out ""
    """,
    "evaluate digits -n 8 --seeds 1": """
        -n 0 | -n 1 | -n x | -n -5 | --seeds 0 | --seeds x | --reference 1 | --reference x | --label 3 | --label x |
        --statistics gone | --statistics text.npy | --statistics digits.npy | --data gone.npy | --data gone.yaml |
        --data text.yaml | --data Images --data.path gone | --data Images --data.path empty |
        --data Arrays --data.path other.npy | --data Arrays --data.path text.npy | --features x | --keep 0 | --keep x |
        --checkpoints 77 | --checkpoints x | --comparison x | --resolution 0 | --resolution x | --beyond x | --chunk 0 |
        --steps 0 | --sampler x | --device nope | --step 9 | --best x
    """,
    "likelihood digits --out new.json -n 2 --repeats 1": """
        -n 0 | -n x | --seed -1 | --seed x | --repeats 0 | --repeats x | --chunk 0 | --tolerance 0 | --tolerance -1 |
        --tolerance x | --tolerance nan | --split x | --split test | --probes x | --resolutions 0 | --resolutions x |
        --data gone.npy | --data Arrays --data.path other.npy | --device nope | --out digits | --step 9 | --best x
    """,
    "restore digits one.npy --task Grey --out new -n 1": """
        --task x | --task os.system | --task inpaint | --task inpaint --task.known gone.png | --task superres --task.factor 0 |
        --task superres --task.factor x | --task superres --task.factor 3.5 | --task deblur --task.sigma -1 |
        -n 0 | -n x | --seed -1 | --noise -1 | --noise x | --noise nan | --label 3 | --truth gone.npy | --method x |
        --method DPS --method.nothing 1 | --chunk 0 | --steps 0 | --device nope | --out digits
    """,
    "denoise noisy one.npy --out new": """
        --noise 0 | --noise -1 | --noise x | --noise nan | --chunk 0 | --chunk x | --phases gone.npy | --device nope |
        --out noisy | --step 9 | --best x
    """,
    "plot functions-fno --out new": """
        -n 0 | -n x | --seed -1 | --seed x | --device nope | --out digits.npy | --step 9 | --nothing
    """,
    "superres functions-fno one.npy --resolution 16 --out new": """
        --resolution 0 | --resolution x | --beyond x | --method x | -n 0 | --seed -1 | --noise -1 | --device nope
    """,
    "downscale climate climate.nc --members 1 --out new.nc": """
        --members 0 | --members -1 | --members x | --seed -1 | --most 0 | --most x | --margin -1 | --margin x | --tile -1 |
        --tile x | --conserve x | --match x | --reach x | --reach nan | --truth gone.nc | --chunk 0 | --device nope |
        --out new.txt | --out digits | --steps 0
    """,
    "reconstruct mri-combined kspace.npy --out new.h5 -n 1": """
        -n 0 | -n x | --seed -1 | --slices x | --slices 99 | --slices 3:1 | --mask x | --acceleration 0 | --acceleration x |
        --maps gone.npy | --noise 0 | --noise x | --coils 0 | --height 0 | --height x | --method x | --chunk 0 |
        --device nope | --out digits | --baselines x
    """,
    "verify climate.nc climate.nc --out new": """
        --replicates -1 | --replicates x | --seed -1 | --scales 0 | --scales x | --thresholds x | --wet x | --blocks x |
        --driving gone.nc | --variables x | --regions x | --out digits.npy
    """,
    "train digits --out new": """
        --train.steps 0 | --train.steps x | --train.steps -1 | --train.steps 1.5 | --train.step 3 | --train.batch_size 0 |
        --train.batch_size x | --train.accumulate 0 | --train.seed -1 | --train.seed x | --train.ema 2 | --train.ema x |
        --train.clip -1 | --train.keep 0 | --train.accelerator tpu | --train.accelerator x | --train.devices 0 |
        --train.devices 99 | --train.precision x | --train.precision 16-mixed | --train.loss x | --train.loss.weight x |
        --train.loss.time x | --train.optimiser x | --train.optimiser.lr -1 | --train.optimiser.lr x |
        --train.optimiser.beta1 2 | --train.checkpoint_every 0 | --train.log_every 0 |
        --train.augment x | --model.net x | --model.net.group 0 | --model.net.group x | --model.net.channels 0 |
        --model.net.channels -4 | --model.net.channels x | --model.net.channels 1000000000 | --model.net.multipliers [] |
        --model.net.multipliers [0] | --model.net.multipliers x | --model.net.blocks 0 | --model.net.attention [9] |
        --model.net.dropout 2 | --model.net.dropout x | --model.net.embedding x | --model.net.spatial 9 |
        --model.net.spatial 3 | --model.shape [-1,8,8] |
        --model.net.in_channels 7 | --model.net.labels -1 | --model.net.labels 3 | --model.net os.system |
        --model.net digits.npy | --model.sde.schedule x | --model.sde.schedule.sigma_max x | --model.sde.noise x |
        --model.normaliser x | --model.precondition x | --model.sampler.steps 0 | --model.sampler x | --model x |
        --model.nothing 3 | --data x | --data gone.yaml | --data text.yaml | --data gone/ | --data.seed -1 | --data.seed x |
        --data.valid -1 | --data.valid 1.5 | --data.valid x | --data Images --data.path gone | --data Images --data.path empty |
        --data Images --data.path broken | --data Images --data.path bomb.zip | --data Images --data.path locked.zip |
        --data Images --data.path text.npy | --data Images --data.path explode | --data Images --data.path huge.zip |
        --data Images --data.path photos --data.crop x | --data Images --data.path photos --data.size [0,8] |
        --data Images --data.path photos --data.size x | --data Images --data.path photos --data.channels 2 |
        --data Images --data.path photos --data.filter x | --data Arrays --data.path gone.npy |
        --data Arrays --data.path text.npy | --data Arrays --data.path empty.npy | --data Arrays --data.path cut.npy |
        --data Arrays --data.path negative.npy | --data Arrays --data.path large.npy | --data Arrays --data.path object.npy |
        --data Arrays --data.path nested.npy | --data Arrays --data.path locked.npz | --data Arrays --data.path cut.npz |
        --data Arrays --data.path digits.npy --data.channel_axis x | --data Arrays --data.path digits.npy --data.labels x |
        --data Arrays | --data Arrays --data.pth digits.npy | --data HuggingFace --data.name "" | --init gone | --init text.npy |
        --mean gone | --mean digits | --resume | --trust | --out digits | --out digits.npy
    """,
    "check-data digits.npy": """
        --preview digits | --preview new.xyz | --normaliser x | --nothing
    """,
    "noise-levels digits --out new.yaml": """
        --sigma-min 0 | --sigma-min x | --repeats 0 | --repeats x | --compare -1 | --out digits | --data.seed -1
    """,
    "suggest digits": "-n 0 | -n x | --data.seed -1 | --nothing | more",
    "compare digits.npy digits.npy --out new.json": "--features x | --keep 0 | --device nope | --out digits | more",
    "make-reference digits.npy --out new": "--features x | --keep 0 | --split x | --device nope | --out digits",
    "import weights.pth --config config.json --out new": "--config gone | --data gone.yaml | --data text.yaml | --out digits",
    "report digits": "--step 9 | --best x | --device nope | --nothing",
    "demo": "--out digits.npy | --nothing | more",
    "baseline ridge climate.nc --train-predictors climate.nc --train-truth climate.nc --target pr --out new.nc": """
        --members 0 | --seed -1 | --target gone | --train-truth gone.nc | --train-predictors text.npy | --predictor gone |
        --out digits
    """,
    "correct climate.nc --train-samples climate.nc --train-truth climate.nc --target pr --out new.nc": """
        --target gone | --train-samples gone.nc | --train-truth text.npy | --map x | --out digits
    """,
}
CALLS = """
    trian | nothing | --nothing | train | train gone --out new | train gone.yaml --out new | train digits | train 3
    --out new | train text.yaml --out new | train doubled.yaml --out new | train deep.yaml --out new | train
    maps.yaml --out new | train sixty.yaml --out new | train number.yaml --out new | train date.yaml --out new |
    train list.yaml --out new | train twice.yaml --out new | train binary.yaml --out new | train long.yaml --out new
    | train empty.yaml --out new | train group.yaml --out new | train self.yaml --out new | train code.yaml --out
    new | train empty --out new | train --print-config | train --dry-run | train --resume --out gone | train
    --resume --out empty | sample | sample gone --out new | sample empty --out new | sample text.npy --out new |
    sample digits | sample 3 --out new | sample cut.safetensors --out new | sample foreign.safetensors --out new |
    sample facts-list.safetensors --out new | sample facts-brace.safetensors --out new | sample
    facts-text.safetensors --out new | sample facts-deep.safetensors --out new | sample facts-empty.safetensors
    --out new | sample bad-channels.safetensors --out new | sample bad-levels.safetensors --out new | sample
    bad-shape.safetensors --out new | sample bad-size.safetensors --out new | sample bad-class.safetensors --out new
    | sample bad-config.safetensors --out new | sample bad-digest.safetensors --out new | evaluate | evaluate gone |
    evaluate text.npy | likelihood gone --out new | likelihood digits | report | report gone | report empty | plot
    gone --out new | plot functions-fno | denoise noisy --out new | denoise noisy gone.npy --out new | denoise noisy
    text.npy --out new | denoise noisy other.npy --out new | denoise gone one.npy --out new | denoise noisy nan.npy
    --out new | denoise noisy negative.npy --out new | denoise noisy one.npy one.npy --out new | restore digits
    gone.npy --task Grey --out new | restore digits text.npy --task Grey --out new | restore digits other.npy --task
    Grey --out new | restore digits one.npy --out new | restore gone one.npy --task Grey --out new | restore digits
    nan.npy --task Grey --out new | restore digits broken/a.png --task Grey --out new | restore digits explode/a.png
    --task Grey --out new | superres functions-fno gone.npy --resolution 16 --out new | superres functions-fno
    text.npy --resolution 16 --out new | downscale climate gone.nc --out new.nc | downscale climate text.npy --out new.nc
    | downscale climate cut.nc --out new.nc | downscale digits climate.nc --out new.nc | downscale gone climate.nc --out new.nc
    | downscale climate --out new.nc | downscale climate c[2].nc --out new.nc | reconstruct mri-combined gone.npy
    --out new.h5 | reconstruct mri-combined text.npy --out new.h5 | reconstruct digits kspace.npy --out new.h5 |
    reconstruct mri-combined cut.h5 --out new.h5 | reconstruct mri-combined | reconstruct mri-combined negative.npy
    --out new.h5 | reconstruct mri-combined digits.npy --out new.h5 | verify gone.nc climate.nc --out new | verify
    climate.nc gone.nc --out new | verify text.npy climate.nc --out new | verify cut.nc climate.nc --out new |
    verify climate.nc --out new | verify climate.nc climate.nc | check-data | check-data gone | check-data gone/ |
    check-data gone.npy | check-data gone.yaml | check-data Digit | check-data text.npy | check-data empty.npy |
    check-data cut.npy | check-data negative.npy | check-data large.npy | check-data object.npy | check-data
    nested.npy | check-data cut.npz | check-data locked.npz | check-data empty | check-data broken | check-data
    bomb.zip | check-data locked.zip | check-data huge.zip | check-data explode | check-data text.yaml | check-data
    cut.h5 | check-data cut.nc | check-data Images | check-data Arrays --data.path cut.h5 | check-data os.system |
    import | import gone --out new | import text.npy --config config.json --out new | import weights.pth --out new |
    import doubled.pth --out new | import deep.pth --out new | import bomb.pth --out new | import wide.pth --config
    config.json --out new | import empty --out new | import weights.pth --config text.npy --out new | import
    weights.pth --config doubled.yaml --out new | import weights.pth --config laughs.yaml --out new | import
    weights.pth --config sixty.yaml --out new | import weights.pth --config deep.json --out new | import weights.pth
    --config deep.pkl --out new | import weights.pth --config levels.json --out new | import weights.pth --config
    channels.json --out new | import weights.pth --config list.yaml --out new | import weights.pth --config
    empty.json --out new | recipes gone | recipes --nothing | suggest | suggest gone | suggest text.yaml |
    noise-levels | noise-levels gone --out new | noise-levels digits | compare digits.npy | compare gone digits.npy
    --out new | compare digits.npy gone --out new | compare text.npy digits.npy --out new | compare other.npy
    digits.npy --out new | compare digits.npy text.npy --out new | compare digits.npy digits.npy | make-reference |
    make-reference gone --out new | make-reference text.npy --out new | make-reference empty --out new |
    make-reference digits.npy | baseline | baseline x climate.nc --out new.nc | correct | correct gone.nc
    --train-samples climate.nc --train-truth climate.nc --target pr --out new.nc
"""
CONFIG = {  # of score_sde, for weights that are none of its
    "training": {"sde": "vesde", "continuous": True},
    "data": {"image_size": 8, "num_channels": 1, "centered": False},
    "model": {
        **{"name": "ncsnpp", "nonlinearity": "swish", "ch_mult": [1, 2], "attn_resolutions": [4], "nf": 8},
        **{"num_res_blocks": 1, "dropout": 0.0, "conditional": True, "resamp_with_conv": True, "fir": False},
        **{"embedding_type": "fourier", "fourier_scale": 16, "resblock_type": "biggan", "progressive": "none"},
        **{"progressive_input": "none", "progressive_combine": "sum", "skip_rescale": True, "init_scale": 0.0},
        **{"scale_by_sigma": True, "sigma_min": 0.01, "sigma_max": 10.0, "num_scales": 10},
    },
}


def calls() -> list[str]:
    with_options = [f"{call} {' '.join(wrong.split())}" for call, all in OPTIONS.items() for wrong in all.split("|")]
    return with_options + [" ".join(call.split()) for call in CALLS.split("|")]


# ------------------------------------------------------------------------------------------------------------- the folder
def arrays(folder: Path) -> None:
    digits = np.load(BEFORE / "data" / "digits.npy")
    np.save(folder / "one.npy", np.zeros((1, 8, 8), np.float32))
    np.save(folder / "nan.npy", np.full((1, 8, 8), np.nan, np.float32))
    np.save(folder / "other.npy", np.zeros((5, 3, 5, 7), np.float32))
    np.save(folder / "object.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(folder / "whole.npz", x=digits)
    (folder / "text.npy").write_text("no array")
    (folder / "empty.npy").write_bytes(b"")
    whole = (BEFORE / "data" / "digits.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:-200])
    for name, shape in (("negative", "(-1, 8, 8)"), ("large", "(1099511627776, 8, 8)"), ("nested", "(" * 500)):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(1014) + "\n"
        (folder / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    for name in ("climate.nc", "kspace.npy", "digits.npy"):
        shutil.copy(BEFORE / "data" / name, folder / name)
    (folder / "cut.nc").write_bytes((folder / "climate.nc").read_bytes()[:3000])
    shutil.copy(folder / "cut.nc", folder / "cut.h5")


def pictures(folder: Path) -> None:
    small, large = io.BytesIO(), io.BytesIO()
    Image.new("L", (8, 8)).save(small, "PNG")
    Image.new("1", (20_000, 20_000)).save(large, "PNG")
    for name in ("empty", "photos", "broken", "explode"):
        (folder / name).mkdir()
    (folder / "photos" / "a.png").write_bytes(small.getvalue())
    (folder / "photos" / "b.png").write_bytes(small.getvalue())
    (folder / "broken" / "a.png").write_bytes(small.getvalue()[:-30])
    (folder / "explode" / "a.png").write_bytes(large.getvalue())
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    with zipfile.ZipFile(folder / "huge.zip", "w") as archive:
        archive.writestr("a.png", small.getvalue())
    claimed = (folder / "huge.zip").read_bytes()
    size = len(small.getvalue()).to_bytes(4, "little") * 2
    (folder / "huge.zip").write_bytes(claimed.replace(size, size[:4] + b"\xf0\xff\xff\xff"))
    for source, name in (("bomb.zip", "locked.zip"), ("whole.npz", "locked.npz")):
        data = bytearray((folder / source).read_bytes())
        for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit that says encrypted
            data[data.find(head) + place] |= 1
        (folder / name).write_bytes(data)


def texts(folder: Path) -> None:
    doubled = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, *a{n - 1}' if n else 'x'}]\n" for n in range(45))
    merged = "a: &a {x: 1}\n" + "".join(
        f"b{n}: &b{n} {{<<: [{f'*b{n - 1}, ' * 9 if n else '*a'}]}}\n" for n in range(12)
    )
    for name, text in (
        ("text.yaml", "no mapping"),
        ("doubled.yaml", doubled),
        ("laughs.yaml", merged),
        ("deep.yaml", "a: " + "[" * 3000),
        ("maps.yaml", "{a: " * 2000 + "}" * 2000),
        ("sixty.yaml", "train: {steps: " + ":".join(["59"] * 100_000) + "}"),
        ("number.yaml", "train: {steps: " + "9" * 1_000_000 + "}"),
        ("date.yaml", "train: {steps: 2001-99-99}"),
        ("list.yaml", "- 1"),
        ("twice.yaml", "train: {steps: 1, steps: 2}"),
        ("binary.yaml", "\x00\x01"),
        ("long.yaml", "# " + "x" * 3_000_000),
        ("empty.yaml", ""),
        ("group.yaml", "modle: {}"),
        ("self.yaml", "base: self.yaml"),
        ("code.yaml", "a: !!python/object/apply:os.system ['touch executed']"),
        ("empty.json", "{}"),
        ("deep.json", '{"a": ' + "[" * 100_000),
        ("config.json", json.dumps(CONFIG)),
        ("levels.json", json.dumps({**CONFIG, "model": {**CONFIG["model"], "ch_mult": [1] * 200_000}})),
        ("channels.json", json.dumps({**CONFIG, "model": {**CONFIG["model"], "nf": 10**9}})),
    ):
        (folder / name).write_text(text)


def weights(folder: Path) -> None:
    inner: list = [1]
    for _ in range(45):
        inner = [inner, inner]
    torch.save({"model": {"all_modules.0.weight": torch.ones(3)}}, folder / "weights.pth")
    torch.save({"model": {"a": torch.ones(3)}, "config": inner}, folder / "doubled.pth")
    torch.save({"model": {"all_modules.0.weight": torch.ones(1).expand(2**40)}}, folder / "wide.pth")
    (folder / "deep.pkl").write_bytes(b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.")
    shutil.copy(folder / "deep.pkl", folder / "deep.pth")
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**7))
    assert pickle.dumps(inner)


def stored(folder: Path) -> None:
    for name in ("digits", "noisy", "functions-fno", "climate", "mri-combined"):
        shutil.copytree(BEFORE / "stored" / name, folder / name)
    (folder / "data").symlink_to(BEFORE / "data")
    file = next((folder / "digits" / "checkpoints").glob("*.safetensors"))
    good = checkpoints.read(file)
    net = good.facts["config"]["model"]["net"]

    def write(name: str, **model: object) -> None:
        config = {**good.facts["config"], "model": {**good.facts["config"]["model"], **model}}
        checkpoints.write(folder / f"bad-{name}.safetensors", good.tensors, {**good.facts, "config": config})

    write("channels", net={**net, "init_args": {**net["init_args"], "channels": 10**9}})
    write("levels", net={**net, "init_args": {**net["init_args"], "multipliers": [1] * 200_000}})
    write("shape", shape=[-1, 8, 8])
    write("size", shape=[2**30, 2**30, 8])
    write("class", net={"class_path": "os.system", "init_args": {}})
    checkpoints.write(folder / "bad-config.safetensors", good.tensors, {**good.facts, "config": [1]})
    (folder / "bad-digest.safetensors").write_bytes(file.read_bytes()[:-1] + b"\x07")
    (folder / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    tensors = {"net.a": torch.ones(3)}
    save_file(tensors, folder / "foreign.safetensors")
    facts = {"list": "[1]", "brace": "{", "text": '"x"', "deep": "[" * 100_000, "empty": "{}"}
    for name, text in facts.items():
        metadata = {"format": "1", "sha256": checkpoints.digest(tensors, text), "facts": text}
        save_file(tensors, folder / f"facts-{name}.safetensors", metadata=metadata)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs and data, some good and some bad."""
    folder = tmp_path_factory.mktemp("world")
    for fill in (arrays, pictures, texts, weights, stored):
        fill(folder)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """All that is in a folder, hidden files included, with sizes and times."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            about = (Path(root) / name).lstat()
            found[f"{root}/{name}"] = (about.st_size, about.st_mtime_ns)
    return found


@pytest.mark.parametrize("call", each(calls(), 6))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")  # half of the time, and millions of values
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    call: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    before = tree(world)
    code = main(shlex.split(call))
    after = tree(world)
    for left in world.glob("new*"):  # or the calls that come later would be refused for its sake
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error: " in line]
    assert code == 2, err
    assert len(lines) == 1 and len(lines[0]) <= LONGEST and err.splitlines()[-1] == lines[0], err
    assert "Traceback" not in out + err and "error" not in out
    assert after == before


def test_there_are_enough_calls() -> None:
    assert len(calls()) >= 250 and len(set(calls())) == len(calls())
