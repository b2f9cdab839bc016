"""``python run_recbole_diffusion.py --model=M --dataset=D ...``: the same as ``recbole-diffusion run ...``."""

import sys

from recbole_diffusion.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
