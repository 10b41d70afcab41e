"""Several processes and devices: ranks, launching, watching each other, a model spread over devices.

Begin with `launch.py`, or with `fsdp.py` for `trainer=fsdp`. It may import no other wing.
"""
