"""`python -m dudi_kit.train RUN_DIR [--resume]`: one training process of a planned run directory."""

import sys

from dudi_kit.errors import Exit
from dudi_kit.noise import hush

if __name__ == "__main__":
    try:
        hush()
        from dudi_kit.train.worker import main
    except KeyboardInterrupt:  # while torch is imported, which takes seconds
        sys.exit(Exit.INTERRUPTED)
    sys.exit(main(sys.argv[1:]))
