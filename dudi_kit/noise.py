"""Libraries that talk while they are imported or load: what they say is neither the user's fault nor news to us.

Our own messages say what was decided and what is missing; a line about an optional kernel in between hides them. Errors
still come through. Call `hush` before the libraries are imported.
"""

import logging
import os
import warnings


def hush() -> None:
    """Only errors from the libraries, and no bars but those of downloads, which can take long."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("bitsandbytes", "huggingface_hub", "torch.distributed.elastic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # DeepSpeed calls collectives that torch has renamed.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
