"""Whether the parts around the Transformers are there and fit: strictly, with one message, wherever they lie."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.codecs import build_audio_decoder, build_image_encoder, build_video_decoder
from model.codecs.parts import needed_parts
from model.config import Codecs, ModelConfig
from model.parts import check_weights, find_mismatches
from model.text import build_text_encoder, build_token_counter
from model.weights import LocalWeights, WeightReader, WeightsMismatch
from pipeline.store import StorageSettings, open_store
from pipeline.weights.opening import open_weights
from tests.e2e.runs import write_manifest
from tests.released import AUDIO_CHANNELS, released_model, released_words

WAN, SOUND = "wan_vae/diffusion_pytorch_model.safetensors", "audio_vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return released_model("magihuman_distill", first_stage="distilled")


@pytest.fixture
def root(released_weights: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(released_weights, tmp_path / "weights"))


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_encoder(path: Path, **values: Any) -> None:
    change_json(path, encoder=json.loads(path.read_text())["encoder"] | values)


def change_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_a_model_needs_what_its_codecs_say() -> None:
    assert needed_parts(Codecs(video="foal", audio="foal", text="foal")) == ()
    assert needed_parts(Codecs(video="wan", audio="oobleck", text="foal")) == ("wan_vae", "audio_vae")
    released = Codecs(video="turbo", audio="oobleck", text="t5gemma")
    assert needed_parts(released) == ("turbo_vae", "wan_vae", "audio_vae", "text_encoder")


def test_all_that_is_missing_is_named_at_once(root: Path, model: ModelConfig) -> None:
    check_weights(model, LocalWeights(root), tp=2)
    shutil.rmtree(root / "audio_vae")
    (root / "text_encoder" / "tokenizer.json").unlink()
    (root / "wan_vae" / "config.json").unlink()
    with pytest.raises(WeightsMismatch) as caught:
        check_weights(model, LocalWeights(root), tp=2)
    assert str(caught.value).splitlines() == [
        "wan_vae/ lacks config.json",
        "audio_vae/ lacks config.json, diffusion_pytorch_model.safetensors",
        "text_encoder/ lacks tokenizer.json",
    ]


def test_two_turbo_checkpoints_are_one_too_many(root: Path, model: ModelConfig) -> None:
    shutil.copy(root / "turbo_vae" / "checkpoint-7.ckpt", root / "turbo_vae" / "checkpoint-8.ckpt")
    with pytest.raises(WeightsMismatch, match=r"checkpoint-7\.ckpt.*checkpoint-8\.ckpt, expected one \.ckpt"):
        check_weights(model, LocalWeights(root), tp=2)


def put(root: Path, stage: str, *, over: str) -> None:
    shutil.rmtree(root / over)
    shutil.copytree(root / stage, root / over)


@pytest.mark.parametrize(
    ("name", "first_stage", "stage", "over"),
    [
        ("magihuman_distill", "distilled", "base", "distill"),
        ("magihuman_base", "base", "distill", "base"),
        ("magihuman_540p", "distilled", "540p_sr", "distill"),
    ],
)
def test_a_stage_in_anothers_place_is_refused(root: Path, name: str, first_stage: str, stage: str, over: str) -> None:
    model = released_model(name, first_stage=first_stage)
    check_weights(model, LocalWeights(root), tp=2)
    put(root, stage, over=over)
    with pytest.raises(WeightsMismatch) as caught:
        check_weights(model, LocalWeights(root), tp=2)
    (finding,) = caught.value.findings
    assert str(caught.value) == finding
    assert {*finding.split(" hold the same weights")[0].split(" and ")} == {stage, over}
    shutil.rmtree(root / stage)
    if stage in model.transformers:
        return
    check_weights(model, LocalWeights(root), tp=2)  # nothing left that it could be told by


def test_another_enlargers_weights_are_refused(root: Path) -> None:
    """They have the same names and shapes; only the tiny ones are shaped alike too."""
    model = released_model("magihuman_1080p", first_stage="distilled")
    put(root, "540p_sr", over="1080p_sr")
    with pytest.raises(WeightsMismatch, match=r"^1080p_sr and 540p_sr hold the same weights: one of them lies in"):
        check_weights(model, LocalWeights(root), tp=2)


def test_turbo_tensors_of_whole_numbers_are_refused(root: Path, model: ModelConfig) -> None:
    path = root / "turbo_vae" / "checkpoint-7.ckpt"
    saved = torch.load(path, weights_only=True)
    name = next(name for name in saved["ema_state_dict"] if "decoder." in name)
    saved["ema_state_dict"][name] = saved["ema_state_dict"][name].int()
    torch.save(saved, path)
    with pytest.raises(WeightsMismatch, match=r"1 of another dtype: decoder\..* is torch\.int32, expected floating"):
        check_weights(model, LocalWeights(root), tp=2)


def test_stages_that_the_model_does_not_use_may_be_damaged_or_alike(root: Path, model: ModelConfig) -> None:
    put(root, "540p_sr", over="1080p_sr")
    shutil.rmtree(root / "base")
    (root / "base").mkdir()
    (root / "base" / "model.safetensors").write_bytes(b"none")
    check_weights(model, LocalWeights(root), tp=2)


def test_render_may_ask_for_a_deep_check(root: Path, model: ModelConfig) -> None:
    change_tensors(root / WAN, lambda tensors: tensors.pop("decoder.conv_in.bias"))
    check_weights(model, LocalWeights(root), tp=2)
    with pytest.raises(WeightsMismatch, match=r"1 missing: decoder\.conv_in\.bias"):
        check_weights(model, LocalWeights(root), tp=2, deep=True)


BROKEN: dict[str, tuple[Callable[[Path], object], Callable[[ModelConfig, WeightReader], object], str]] = {
    "a tensor of Wan's is missing": (
        lambda root: change_tensors(root / WAN, lambda tensors: tensors.pop("decoder.conv_in.bias")),
        build_image_encoder,
        r"wan_vae.*\n  1 missing: decoder\.conv_in\.bias",
    ),
    "a tensor too many": (
        lambda root: change_tensors(root / SOUND, lambda tensors: tensors.update(stray=torch.zeros(1))),
        build_audio_decoder,
        r"audio_vae.*\n  1 unexpected: stray",
    ),
    "another shape": (
        lambda root: change_json(root / "audio_vae" / "config.json", decoder_channels=8),
        build_audio_decoder,
        r"audio_vae.*\n  \d+ of another shape: decoder\.",
    ),
    "another VAE": (
        lambda root: change_json(root / "wan_vae" / "config.json", z_dim=16),
        build_image_encoder,
        r"wan_vae/config\.json: z_dim is 16, expected 48",
    ),
    "no JSON": (
        lambda root: (root / "wan_vae" / "config.json").write_text("{"),
        build_image_encoder,
        r"wan_vae/config\.json is not JSON",
    ),
    "a Turbo decoder that is not known": (
        lambda root: change_json(root / "turbo_vae" / "TurboVAE.json", decoder_causal=True),
        build_video_decoder,
        r"turbo_vae/TurboVAE\.json: decoder_causal is True",
    ),
    "JSON that is too deep": (
        lambda root: (root / "wan_vae" / "config.json").write_text("[" * 200_000),
        build_image_encoder,
        r"wan_vae/config\.json is not JSON",
    ),
    "a Wan VAE of words": (
        lambda root: change_json(root / "wan_vae" / "config.json", base_dim="x"),
        build_image_encoder,
        r"wan_vae/config\.json: nothing can be built from it: ",
    ),
    "an encoder that is a number": (
        lambda root: (root / "text_encoder" / "config.json").write_text('{"encoder": 3}'),
        build_text_encoder,
        r"text_encoder/config\.json: nothing can be built from it: ",
    ),
    "an encoder of words": (
        lambda root: change_encoder(root / "text_encoder" / "config.json", num_hidden_layers="x"),
        build_text_encoder,
        r"text_encoder/config\.json: nothing can be built from it: ",
    ),
    "Turbo channels of all kinds": (
        lambda root: change_json(root / "turbo_vae" / "TurboVAE.json", decoder_block_out_channels=[4, "8", None, -16]),
        build_video_decoder,
        r"turbo_vae/TurboVAE\.json: nothing can be built from it: ",
    ),
    "a Turbo norm of words": (
        lambda root: change_json(root / "turbo_vae" / "TurboVAE.json", resnet_norm_eps="x"),
        build_video_decoder,
        r"turbo_vae/TurboVAE\.json: resnet_norm_eps is 'x', expected a number",
    ),
    "a Turbo decoder of another width": (
        lambda root: change_json(root / "turbo_vae" / "TurboVAE.json", decoder_block_out_channels=[4, 8, 12, 20]),
        build_video_decoder,
        r"checkpoint-7\.ckpt",
    ),
    "a tokenizer that is none": (
        lambda root: (root / "text_encoder" / "tokenizer.json").write_text("{}"),
        build_token_counter,
        r"text_encoder/ holds no tokenizer",
    ),
    "half a T5Gemma": (
        lambda root: change_tensors(root / TEXT, lambda tensors: tensors.pop("model.encoder.norm.weight")),
        build_text_encoder,
        r"text_encoder.*\n  1 missing: encoder\.norm\.weight",
    ),
}


@pytest.mark.parametrize(
    ("path", "name"),
    [(WAN, "encoder.conv_in.bias"), (SOUND, "decoder.conv1.bias"), (TEXT, "model.encoder.norm.weight")],
)
def test_a_deep_check_compares_every_tensor_and_reads_none(
    path: str, name: str, root: Path, model: ModelConfig
) -> None:
    reader = LocalWeights(root)
    assert set(find_mismatches(model, reader, tp=2, deep=True).values()) == {None}
    assert reader.counts.requested[path] < 0.2 * (root / path).stat().st_size
    change_tensors(root / path, lambda tensors: tensors.pop(name))
    part = path.split("/")[0]
    assert find_mismatches(model, LocalWeights(root), tp=2)[part] is None
    mismatch = find_mismatches(model, LocalWeights(root), tp=2, deep=True)[part]
    assert mismatch is not None
    assert mismatch.findings == (f"missing: {name.removeprefix('model.')}",)


@pytest.mark.parametrize("name", BROKEN)
def test_a_part_that_does_not_fit_is_refused(name: str, root: Path, model: ModelConfig) -> None:
    break_it, build, message = BROKEN[name]
    break_it(root)
    with pytest.raises(WeightsMismatch, match=message):
        build(model, LocalWeights(root))


def test_keys_of_a_later_diffusers_do_no_harm(root: Path, model: ModelConfig) -> None:
    change_json(root / "wan_vae" / "config.json", clip_output=False, _diffusers_version="99.0")
    build_image_encoder(model, LocalWeights(root))


@pytest.mark.s3
def test_parts_in_object_storage_are_as_good_as_a_folder(
    moto_s3: str, released_weights: Path, model: ModelConfig
) -> None:
    store = open_store(moto_s3)
    for path in released_weights.rglob("*"):
        if path.is_file():
            store.put(f"weights/{path.relative_to(released_weights).as_posix()}", path.read_bytes())
    here: WeightReader = LocalWeights(released_weights)
    there = open_weights(f"{moto_s3}/weights", StorageSettings())
    check_weights(model, there, tp=2)
    latent, sound = torch.randn(48, 3, 2, 2), torch.randn(4, AUDIO_CHANNELS)
    image = torch.full((64, 64, 3), 200, dtype=torch.uint8)

    def outputs(reader: WeightReader) -> list[torch.Tensor]:
        return [
            *build_video_decoder(model, reader).decode(latent),
            build_image_encoder(model, reader).encode_image(image),
            build_audio_decoder(model, reader).decode(sound),
            *build_text_encoder(model, reader).encode(["Rain falls."]),
        ]

    assert all(torch.equal(a, b) for a, b in zip(outputs(here), outputs(there), strict=True))


HIDDEN = """
import importlib.machinery, sys
found = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in ("diffusers", "transformers") else found(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
from jobs.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_extra_a_run_says_what_to_install(released_weights: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.parquet", [{"prompt": "Rain falls.", "duration": 3}])
    words = (f"manifest={manifest}", f"output={tmp_path / 'out'}", f"weights={released_weights}")
    command = [sys.executable, "-c", HIDDEN, "render", *words]
    command += released_words("magihuman_distill", first_stage="distilled")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "happyhorse: model magihuman_distill needs diffusers and transformers, not installed here: "
        "pip install 'happyhorse[released]'"
    ]
    assert not (tmp_path / "out").exists()
