"""The pipeline's stages: thin scripts that read params, call `ocd_core` and write artifacts."""

import os

# PyTorch then asks for huge pages for large tensors: page faults are otherwise half of the time of rendering a view
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
