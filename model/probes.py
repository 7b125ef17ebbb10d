"""Whether torch compiles for the processor that is here, and how to have it look again.

Inductor probes the processor by compiling and loading a small library. Where that fails, be the library half-written
or the probing process killed, it silently compiles for a lesser processor, which gives other numbers, and remembers it.
Reaches into corners of torch that another version may not have: there nothing is checked.
"""

import torch

PROMISED_BITS = {"AVX2": 256, "AVX512": 512}  # by what torch's own kernels use; where else, only what inductor names


def lesser_processor() -> str | None:
    """How the probes fell short, in one line."""
    from torch._inductor import config, cpu_vec_isa

    pick = getattr(cpu_vec_isa, "pick_vec_isa", None)
    chosen = (getattr(config.cpp, "simdlen", None), getattr(config.cpp, "vec_isa_ok", None))
    if pick is None or chosen != (None, None):
        return None
    try:
        picked = pick()
        bits, works = picked.bit_width(), bool(picked)  # some are named first and probed only when asked
    except (AttributeError, OSError, RuntimeError):  # no compiler, say: what compiles for good tells it better
        return None
    capability = torch.backends.cpu.get_cpu_capability()
    if works and bits >= PROMISED_BITS.get(capability, 0):
        return None
    if not bits and capability not in PROMISED_BITS:
        return None
    return f"it would compile for {picked} on a processor with {capability}, as its probes of the processor fail"


def forget_probes() -> None:
    """All that torch remembers of them in this process."""
    from torch._inductor import cpu_vec_isa

    base = getattr(cpu_vec_isa, "VecISA", None)
    corners = list(vars(cpu_vec_isa).values())
    for each in list(corners):
        if base is not None and isinstance(each, type) and issubclass(each, base):
            corners += vars(each).values()
    for each in corners:
        if callable(clear := getattr(each, "cache_clear", None)):
            clear()
