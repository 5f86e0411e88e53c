"""The services, each a process of its own.

Their torch threads sleep while they wait for one another. By default OpenMP has them spin, and on a
machine with other work on it a thread that waits takes the core from the one that it waits for.
"""

import os

# OpenMP reads it once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
