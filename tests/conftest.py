"""For all tests: one thread for torch's operations, as small tensors are quicker that way, also beside other work."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
