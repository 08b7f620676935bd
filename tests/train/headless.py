"""The training process with every head computed beside its model, however few the logits: small models would not be."""

import sys
from typing import Any

from dudi_kit.pipeline.during import make_scorer
from dudi_kit.train.step import Objective
from dudi_kit.train.worker import main

if __name__ == "__main__":
    settings: dict[str, Any] = Objective.__init__.__kwdefaults__
    settings["few"] = 0
    sys.exit(main(sys.argv[1:], make_scorer))
