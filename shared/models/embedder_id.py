"""Which sentence embedder the project has and what its vectors look like.

Apart from the embedder, so that who only reads cards need not import torch.
"""

from __future__ import annotations

EMBEDDER_ID = "all-MiniLM-L6-v2"
DIMENSION = 384
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VECTORS_ID = f"{EMBEDDER_ID}-{WEIGHTS_SHA256[:12]}"
"""Vectors with different ids are never compared."""
