"""`python -m dudi_kit.pipeline RUN_DIR ANSWERS`: the process in which the teacher is asked (see `asking`)."""

import sys

from dudi_kit.noise import hush

if __name__ == "__main__":
    hush()
    from dudi_kit.pipeline.asking import main

    sys.exit(main(sys.argv[1:]))
