"""Libraries that talk while they are imported or load: what they say is neither the user's fault nor news to us.

Our own messages say what was decided and what is missing; a line about an optional kernel in between hides them. Errors
still come through. Call `hush` before the libraries are imported.
"""

import logging
import os


def hush() -> None:
    """Only errors from the libraries, no bars of theirs beside ours."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("bitsandbytes", "torch.distributed.elastic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
