"""A step with compiled layers against the eager one, side by side on one CPU thread."""

import time

import torch

from model.compiling import compile_layers
from tests.bench.figures import Figure
from tests.bench.model import gain, random_inputs, random_transformer


@torch.inference_mode()
def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    found: dict[str, Figure] = {}
    tensors = random_inputs()
    for dtype in (torch.float32, torch.bfloat16):
        eager = random_transformer(dtype=dtype)
        compiled = random_transformer(dtype=dtype)
        compiled.load_state_dict(eager.state_dict())
        compile_layers(compiled)
        began = time.process_time()
        compiled(*(tensor[:, :2] if tensor.dim() == 3 else tensor[..., :2, :2] for tensor in tensors))
        name = str(dtype).removeprefix("torch.")
        found[f"{name}: making four kernels"] = Figure(value=time.process_time() - began, unit="CPU s")
        got, expected = compiled(*tensors)[0], eager(*tensors)[0]
        found[f"{name}: compiled against eager, relative L2"] = Figure(
            value=float((got - expected).norm() / expected.norm()), unit=""
        )
        ratio = gain(lambda: eager(*tensors), lambda: compiled(*tensors))  # noqa: B023
        found[f"{name}: a compiled step against an eager one"] = Figure(value=ratio, unit="x")
    return found
