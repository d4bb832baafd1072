"""Make a model that comes with scorefield of a run: `python benchmarks/models.py RUN NAME`; its card is written by hand.

scorefield train brain-t1-small "--data.paths=[$SCOREFIELD_DATA/mri/colin27_t1_1mm.nii.gz]" --out RUN
python benchmarks/models.py RUN brain-t1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scorefield
from scorefield.run.loading import open_checkpoint
from scorefield.run.shipped import WEIGHTS, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    folder = Path(scorefield.__file__).parent / "models" / args.name
    pack(open_checkpoint(args.run).checkpoint, folder)
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
