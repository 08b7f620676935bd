"""The process in which the teacher is asked before training: `python -m dudi_kit.pipeline RUN_DIR [ANSWERS]`.

With a file of answers it writes texts (see `asking`), without one it fills the cache (see `filling`).
"""

import sys

from dudi_kit.noise import hush

if __name__ == "__main__":
    hush()
    from dudi_kit.pipeline import asking, filling

    arguments = sys.argv[1:]
    sys.exit(asking.main(arguments) if len(arguments) > 1 else filling.main(arguments))
