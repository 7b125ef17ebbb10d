"""Every choice in `conf/` composes into settings; unknown keys, choices and missing values are refused by name."""

from importlib import resources
from typing import Any

import pytest

from jobs.cli import COMMANDS
from jobs.compose import compose_values, defaults, leaves
from jobs.settings import run_settings
from jobs.words import read_words
from model.config import Size
from model.foal import super_resolution, train
from model.foal.flow import BASE
from pipeline.errors import ConfigError
from pipeline.settings import ClusterSettings, ParallelSettings, RetrySettings
from pipeline.store import StorageSettings

NEEDED = ["manifest=table.parquet", "output=somewhere"]


def render_values(*words: str) -> dict[str, Any]:
    return compose_values("render", read_words([*NEEDED, *words]))


def every_choice() -> list[str]:
    _, groups = defaults("render")
    return [f"{name}={choice}" for name, group in groups.items() for choice in group.names]


@pytest.mark.parametrize("word", every_choice())
def test_every_choice_makes_settings(word: str) -> None:
    assert run_settings(render_values(word)).model.name


def test_every_folder_of_conf_is_a_group_of_render_or_of_submit() -> None:
    folders = {entry.name for entry in resources.files("conf").iterdir() if entry.is_dir() and entry.name[0] != "_"}
    assert set(defaults("render")[1]) | set(defaults("submit")[1]) == folders


def test_choices_of_a_group_have_the_same_keys() -> None:
    """Else a key would be known or unknown depending on another word."""
    _, groups = defaults("render")
    for name, group in groups.items():
        if name != "model":  # models differ in their size tables
            keys = {choice: frozenset(leaves(render_values(f"{name}={choice}")[name])) for choice in group.names}
            assert len(set(keys.values())) == 1, keys


def test_no_group_has_the_name_of_a_key() -> None:
    everything, groups = defaults("render")
    assert not {key.rpartition(".")[2] for key in leaves(everything)} & set(groups)


def test_conf_and_the_settings_agree_on_defaults() -> None:
    settings = run_settings(render_values())
    assert settings.parallel == ParallelSettings()
    assert settings.cluster == ClusterSettings()
    assert settings.retry == RetrySettings()
    assert settings.storage == StorageSettings()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_root_file(name: str) -> None:
    assert defaults(name)[0]


def test_values_reach_the_settings() -> None:
    settings = run_settings(
        render_values("media.crf=20", "parallel=tp4", "parallel.groups=3", "storage.endpoint_url=http://127.0.0.1:9000")
    )
    assert (settings.media.crf, settings.parallel.tp, settings.parallel.groups) == (20, 4, 3)
    assert settings.storage.endpoint_url == "http://127.0.0.1:9000"


def test_a_table_given_whole_is_merged() -> None:
    sampling = run_settings(render_values("model.sampling={steps:8}")).model.sampling
    assert (sampling.steps, sampling.flow_shift) == (8, 5.0)


def test_text_is_not_touched_by_interpolation() -> None:
    settings = run_settings(compose_values("render", read_words(["manifest=${x},[1]", "output=???", "weights=null"])))
    assert (settings.manifest, settings.output, settings.weights) == ("${x},[1]", "???", "null")


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ([], None),
        (["cluster=ray"], "auto"),
        (["address=ray://head:10001"], "ray://head:10001"),
        (["cluster=ray", "address=10.0.0.1:6379"], "10.0.0.1:6379"),
    ],
)
def test_where_ray_is(words: list[str], address: str | None) -> None:
    assert run_settings(render_values(*words)).cluster.address == address


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.sampling={stepz:2}", "unknown key model.sampling.stepz; the nearest known one is model.sampling.steps"),
        ("media.crff=20", "unknown key media.crff; the nearest known one is media.crf"),
        ("crf=20", "unknown key crf; the nearest known one is media.crf"),
        ("path=x", "unknown key path"),
        ("dry_run=true", "unknown key dry_run\n(`happyhorse render --help` lists them all)"),
        ("hydra.verbose=true", "unknown key hydra.verbose"),
        ("parallel=tp3", "parallel=tp3 is none of its choices: auto, tp1, tp2, tp4"),
        ("media.crf=good", 'media.crf: got "good", expected a whole number'),
        ("media.preset=warp", 'media.preset: got "warp", expected one of ultrafast, '),
        ("media.crf=99", "media: crf is 99, expected 0 to 51"),
        ("model.name=3", "model.name: got 3, expected text"),
        ("retry.failed=1", "retry.failed: got 1, expected true or false"),
        ("model.sampling.steps=0", "steps is 0, expected at least 1"),
        ("model.transformer.head_dim=20", "head_dim 20 is not a multiple of 8"),
        ("parallel.tp=0", "parallel.tp is 0, expected at least 1"),
        ("media.crf=${nowhere}", "media.crf"),
        ("media={crf:1}", "media={'crf': 1} is none of its choices"),
    ],
)
def test_a_mistake_is_named(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_settings(render_values(word))
    assert said in str(caught.value)


def test_all_unknown_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        render_values("media.crff=20", "retry.fialed=true")
    assert "media.crf" in str(caught.value)
    assert "retry.failed" in str(caught.value)


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(ConfigError, match=r"render needs manifest=\.\.\. and output=\.\.\."):
        compose_values("render", read_words([]))


def test_the_model_is_whole() -> None:
    model = run_settings(render_values()).model
    assert set(model.sizes["64P"]) == {"1:1", "16:9", "9:16"}
    assert model.sizes["64P"]["16:9"] == Size(latent_height=6, latent_width=10, height=46, width=80)


@pytest.mark.parametrize("name", ["foal", "foal_distill"])
def test_the_foal_is_the_one_that_was_trained(name: str) -> None:
    model = run_settings(render_values(f"model={name}")).model
    assert model.transformer == BASE
    assert model.sampling == train.SAMPLING
    stage = model.super_resolution
    assert stage is not None
    assert (stage.transformer, stage.sampling) == (super_resolution.SUPER_RESOLUTION, super_resolution.SAMPLING)
