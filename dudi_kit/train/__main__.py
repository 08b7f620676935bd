"""`python -m dudi_kit.train RUN_DIR [--resume]`: one training process of a planned run directory."""

import sys

from dudi_kit.noise import hush

if __name__ == "__main__":
    hush()
    from dudi_kit.train.worker import main

    sys.exit(main(sys.argv[1:]))
