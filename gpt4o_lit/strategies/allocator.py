"""Memory that a training step frees and the next one asks for again stays with the process."""

import ctypes
import platform

# Names of malloc.h: mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks rather than to hand them back to the system at each free.

    Otherwise each step on a CPU takes its activations, gradients and logits from the kernel anew,
    page by page, zeroed: a third of the time of a GPT-2 in bfloat16. The process then keeps the
    most that it ever used. Returns whether it was done; there is nothing to do off glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, NEVER))
