"""`python -m dudi_kit.pipeline.worker RUN_DIR [--resume] [--profile]`: one training process of a planned run.

The room of training may not know that of evaluation: who scores the student while it trains is handed in here.
"""

import os
import signal
import sys

from dudi_kit.errors import Exit
from dudi_kit.noise import hush
from dudi_kit.train.processes import die_with_launcher

if __name__ == "__main__":
    try:
        die_with_launcher()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until there is something to save
        hush()
        from dudi_kit.pipeline.during import make_scorer
        from dudi_kit.train.stopping import ASKING
        from dudi_kit.train.worker import main
    except KeyboardInterrupt:  # while torch is imported, which takes seconds
        sys.exit(Exit.INTERRUPTED)
    code = main(sys.argv[1:], make_scorer)
    for asking in ASKING:  # the libraries take a while to tidy up, and a launcher may ask once more
        if signal.getsignal(asking) is not signal.SIG_IGN:
            signal.signal(asking, lambda *_: os._exit(code))
    sys.exit(code)
