"""How far 8-bit linear maps take the recorded models from their float32 numbers: velocities, and latents at the end."""

from dataclasses import replace
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.foal import PROMPTS, denoised, mean_far
from tests.bench.rounding import BfloatRecording, RoundedRecording, velocity_error
from tests.configured import load_model

GOLDEN = str(Path(__file__).parents[1] / "golden")


def figures() -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for word, kind in (("bfloat16", BfloatRecording), ("fp8", RoundedRecording)):
        for name in ("dit_base_v2", "dit_local_v1", "dit_wide_v2", "samplers"):
            for output, error in velocity_error(GOLDEN, name, kind=kind).items():
                found[f"{word}, {name} {output}, relative L2"] = Figure(value=error, unit="")
    return found | _of_the_foal()


def _of_the_foal() -> dict[str, Figure]:
    """Trained weights: latents at the end of its first stage."""
    found: dict[str, Figure] = {}
    for name in ("foal", "foal_distill"):
        model = load_model(name)
        expected = [denoised(model, prompt) for prompt in PROMPTS]
        for word, fp8 in (("bfloat16", False), ("fp8", True)):
            rounded = replace(model, compute_dtype="bfloat16", fp8=fp8)
            got = [denoised(rounded, prompt) for prompt in PROMPTS]
            for kind in ("video", "audio"):
                error = mean_far(got, expected, kind)
                found[f"{word}, {name} {kind} latents, relative L2"] = Figure(value=error, unit="")
    return found
