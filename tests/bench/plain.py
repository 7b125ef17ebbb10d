"""The Transformer as one would write it down from its description: eager, unfused, one modality at a time.

What `make bench` compares ours with. It takes the weights of a `Transformer` that is not cut.
"""

import torch
from torch import Tensor

from model.config import TransformerConfig
from model.positions import coordinates, rotary_table
from model.transformer import Transformer, patchify, unpatchify


def plain_forward(model: Transformer, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """What `model(video, audio, text)` gives for a batch of one, without any of its code."""
    state, config = model.state_dict(), model.config
    grid = (video.shape[2], video.shape[3] // 2, video.shape[4] // 2)
    coords = coordinates(grid, audio_length=audio.shape[1], text_length=text.shape[1], style=config.coords_style)
    table = rotary_table(coords, state["adapter.rope.bands"])
    parts = [
        tokens[0] @ state[f"adapter.{name}_embedder.weight"].T + state[f"adapter.{name}_embedder.bias"]
        for name, tokens in (("video", patchify(video)), ("audio", audio), ("text", text))
    ]
    for layer in range(config.num_layers):
        prefix = f"block.layers.{layer}."
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        parts = [x + y for x, y in zip(parts, _attention(parts, own, config, layer, table), strict=True)]
        parts = [x + _mlp(x, own, config, layer, expert) for expert, x in enumerate(parts)]
    heads = (
        _norm(parts[n], state[f"final_norm_{name}.weight"]) @ state[f"final_linear_{name}.weight"].T
        for n, name in enumerate(("video", "audio"))
    )
    video_out, audio_out = heads
    return unpatchify(video_out[None], shape=video.shape), audio_out[None]


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * (1 + weight)


def _of(expert: int, weight: Tensor, config: TransformerConfig, layer: int) -> Tensor:
    count = config.num_experts(layer)
    return weight.chunk(count)[expert] if count > 1 else weight


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return (x.to(weight.dtype) @ weight.T).float()


def _attention(
    parts: list[Tensor], own: dict[str, Tensor], config: TransformerConfig, layer: int, table: tuple[Tensor, Tensor]
) -> list[Tensor]:
    widths = [config.num_heads_q * config.head_dim, *[config.num_heads_kv * config.head_dim] * 2, config.num_heads_q]
    columns: list[list[Tensor]] = []
    for expert, x in enumerate(parts):
        weights = {
            name: _of(expert, own[f"attention.{name}.weight"], config, layer) for name in ("pre_norm", "linear_qkv")
        }
        q, k, v, gate = _linear(_norm(x, weights["pre_norm"]), weights["linear_qkv"]).split(widths, dim=-1)
        q, k, v = (each.unflatten(-1, (-1, config.head_dim)) for each in (q, k, v))
        q = _norm(q, _of(expert, own["attention.q_norm.weight"], config, layer))
        k = _norm(k, _of(expert, own["attention.k_norm.weight"], config, layer))
        columns.append([q, k, v, gate])
    q, k, v, gate = (torch.cat(column) for column in zip(*columns, strict=True))
    dtype = own["attention.linear_proj.weight"].dtype
    q, k, v = _rotated(q, table).to(dtype), _rotated(k, table).to(dtype), v.to(dtype)
    repeat = config.num_heads_q // config.num_heads_kv
    heads = []
    for head in range(config.num_heads_q):
        scores = (q[:, head] @ k[:, head // repeat].T).float() / config.head_dim**0.5
        heads.append(scores.softmax(-1).to(dtype) @ v[:, head // repeat])
    out = (torch.stack(heads, dim=1).float() * gate.sigmoid()[..., None]).flatten(-2)
    pieces = out.split([len(x) for x in parts])
    proj = own["attention.linear_proj.weight"]
    return [_linear(x, _of(expert, proj, config, layer)) for expert, x in enumerate(pieces)]


def _rotated(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    sin, cos = (each[:, None] for each in table)
    width = sin.shape[-1]
    first, second, rest = x.split([width, width, x.shape[-1] - 2 * width], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def _mlp(x: Tensor, own: dict[str, Tensor], config: TransformerConfig, layer: int, expert: int) -> Tensor:
    weights = {
        name: _of(expert, own[f"mlp.{name}.weight"], config, layer)
        for name in ("pre_norm", "up_gate_proj", "down_proj")
    }
    up = _linear(_norm(x, weights["pre_norm"]), weights["up_gate_proj"])
    gate = (up[:, 0::2] if config.is_gated(layer) else up).clamp(max=7)
    inner = gate * torch.sigmoid(1.702 * gate)
    if config.is_gated(layer):
        inner = inner * (up[:, 1::2].clamp(-7, 7) + 1)
    return _linear(inner, weights["down_proj"])
