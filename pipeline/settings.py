"""What a run is asked to do, as plain frozen values made once, in `jobs/`, from `conf/`. No Ray, no torch, no hydra.

Fields have the defaults of `conf/`; every rule about them is checked here and a bad value is a ConfigError.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from model.config import ModelConfig
from model.placing import RESIDENT, Placing, check_placing
from pipeline.errors import ConfigError
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.manifest.selection import EVERYTHING, Selection
from pipeline.store import StorageSettings
from pipeline.types import MediaSettings

Device = Literal["auto", "cpu", "cuda"]
Packing = Literal["STRICT_PACK", "PACK"]
SMALLEST_OBJECT_STORE = 80_000_000  # bytes; Ray refuses less than 75 MiB


@dataclass(frozen=True, kw_only=True)
class ParallelSettings:
    """How many ranks render one clip, and how many clips render at once."""

    tp: int | None = 2  # ranks of a group; None: as many as its weights are cut for, else the fewest that hold it
    groups: int | None = None  # None: as many as the cluster holds; one on a machine without GPUs
    enlarging_groups: int | None = None  # where stages are apart: of super-resolution; `groups` are the first stage's
    threads_per_rank: int = 1  # torch threads; a setting because it decides bytes

    def __post_init__(self) -> None:
        _at_least("parallel", self, 1, "threads_per_rank")
        for name in ("tp", "groups", "enlarging_groups"):
            if getattr(self, name) is not None:
                _at_least("parallel", self, 1, name)

    @property
    def ranks(self) -> int:
        """Of a group, once that is settled; until then the least there can be."""
        return self.tp or 1


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where the actors live, how many of each, and how long each thing may take before it counts as lost."""

    address: str | None = None  # None: a Ray of our own on this machine, gone when the run ends
    device: Device = "auto"  # auto: cuda where the cluster has GPUs
    grows: bool = False  # an autoscaler starts nodes when they are asked for: device and groups are to be said
    placement: Packing = "STRICT_PACK"  # tensor parallelism wants one node
    num_encoders: int = 1
    num_finishers: int = 1
    clips_encoded_ahead: int = 4  # a group; where not all can be kept, conditions are made for that many clips ahead
    prompts_a_batch: int = 8  # embedded by one encoder one after the other, before it answers
    clips_unfinished: int = 2  # a finisher; latents waiting or being finished before groups are given no new clip
    clips_drafted: int = 2  # an enlarging group; drafts waiting or being enlarged before no new one is made
    max_kept_conditions: int = 256  # embeddings kept; where all that are left are no more, all are made at once
    keep_embeddings: bool = False  # in the output, for the next run
    object_store_bytes: int = 256 << 20  # of our own Ray; latents and embeddings travel through it
    placement_timeout_s: float = 60.0
    load_timeout_s: float = 600.0  # rendezvous, weights, warm-up clip
    encode_timeout_s: float = 120.0
    step_timeout_s: float = 180.0  # between two denoising steps, and before the first
    clip_timeout_s: float = 7200.0  # one clip in a group
    finish_timeout_s: float = 1800.0  # decode, ffmpeg, upload
    collective_timeout_s: float = 300.0  # torch.distributed's own; the watchdog is usually sooner
    leave_timeout_s: float = 10.0  # for the living ranks of a group to leave a collective that a dead one broke
    shutdown_timeout_s: float = 20.0  # for actors and placements to be gone when a run ends
    step_slack: float = 20.0  # a step that takes so many times what such steps took in this run counts as hung
    step_least_s: float = 20.0  # but none that takes less than this; also for an idle process to say that it is there
    health_period_s: float = 0.5
    node_period_s: float = 2.0  # between two looks at which nodes have joined, left or drain
    least_free_memory: float = 0.9  # of a card, before weights are loaded; less is somebody's who is not there any more
    stop_grace_s: float = 120.0  # after the first signal, for what is in flight

    def __post_init__(self) -> None:
        _at_least("cluster", self, 1, "num_encoders", "num_finishers", "clips_encoded_ahead", "clips_unfinished")
        _at_least("cluster", self, 1, "clips_drafted", "prompts_a_batch")
        _at_least("cluster", self, 0, "max_kept_conditions", "stop_grace_s")
        _at_least("cluster", self, SMALLEST_OBJECT_STORE, "object_store_bytes")
        _one_of("cluster", self, "device", ("auto", "cpu", "cuda"))
        _one_of("cluster", self, "placement", ("STRICT_PACK", "PACK"))
        for name in ("placement", "load", "encode", "step", "clip", "finish", "collective", "leave", "shutdown"):
            _above_zero("cluster", self, f"{name}_timeout_s")
        for name in ("health_period_s", "node_period_s", "step_least_s"):
            _above_zero("cluster", self, name)
        _at_least("cluster", self, 1, "step_slack")
        _at_least("cluster", self, 0, "least_free_memory")


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How often what may be tried again, and when a run is not worth going on with.

    A clip is given up before the groups that it kills, and a node before them.
    """

    max_clip_deaths: int = 3  # groups that died with the clip, then it is FAILED
    max_crew_losses: int = 4  # times a group (or encoder, or finisher) is lost in a row, with different clips
    max_encode_attempts: int = 3
    max_finish_attempts: int = 3
    max_evictions: int = 20  # times a clip may lose its place to nodes that go; it costs it nothing, but has an end
    max_node_strikes: int = 3  # losses with different clips on one node or GPU, then nothing is started there
    forgive_s: float = 1800.0  # until a strike against a node or GPU is forgotten
    max_failed: int | None = None  # clips; the run stops when more have failed
    max_failed_percent: float | None = None  # of its clips; the run stops when more have failed
    first_failed: int | None = 20  # the run stops when its first so many clips have all failed
    failed: bool = True  # whether clips that an earlier run recorded as failed are tried again

    def __post_init__(self) -> None:
        _at_least("retry", self, 1, "max_clip_deaths", "max_encode_attempts", "max_finish_attempts")
        _at_least("retry", self, 1, "max_evictions", "max_node_strikes")
        _above_zero("retry", self, "forgive_s")
        for name, least in (("max_failed", 0), ("max_failed_percent", 0), ("first_failed", 1)):
            if getattr(self, name) is not None:
                _at_least("retry", self, least, name)
        if self.max_crew_losses <= self.max_clip_deaths:
            raise ConfigError(
                f"retry.max_crew_losses is {self.max_crew_losses}, expected more than retry.max_clip_deaths "
                f"({self.max_clip_deaths}): a poisonous clip must be dropped before the group it kills"
            )


@dataclass(frozen=True, kw_only=True)
class LeaseSettings:
    """How one run at a time has an output."""

    lease_s: float = 30.0  # a run that did not renew its lease for so long is taken over; it is renewed every third
    wait_s: float = 0.0  # how long to wait for a run that lives before giving up
    settle_s: float = 2.0  # before a claim is trusted where create-only is not atomic; no less than the store's lag

    def __post_init__(self) -> None:
        _at_least("job", self, 0, "wait_s")
        _at_least("job", self, 1, "settle_s")  # stores tell seconds apart, not less
        if self.lease_s < 3 * self.settle_s:
            raise ConfigError(
                f"job.lease_s is {self.lease_s:g}, expected at least 3 x job.settle_s ({self.settle_s:g})"
            )


@dataclass(frozen=True, kw_only=True)
class PeopleSettings:
    """What those who look on get, and how soon they are heard."""

    control_s: float = 5.0  # between two looks at what was asked of the run: cancel, pause, resume
    clip_logs: bool = True  # a file for each attempt at a clip

    def __post_init__(self) -> None:
        _above_zero("job", self, "control_s")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One `render` from manifest to output."""

    manifest: str
    output: str
    weights: str  # `builtin`, a folder, or an address in object storage
    model: ModelConfig
    media: MediaSettings
    storage: StorageSettings
    parallel: ParallelSettings
    cluster: ClusterSettings
    retry: RetrySettings
    lease: LeaseSettings
    placing: Placing = RESIDENT
    people: PeopleSettings = field(default_factory=PeopleSettings)
    truncate_text: bool = False
    images: InputAccess = OWN_FOLDER  # what first frames may be read from, beyond the manifest's own folders
    selection: Selection = EVERYTHING  # of the manifest's rows
    findings: str | None = None  # where all that is wrong with the manifest is written as Parquet

    def __post_init__(self) -> None:
        check_stages(self.model, self.placing)
        if self.parallel.enlarging_groups is not None and self.placing.stages != "apart":
            asked = f"parallel.enlarging_groups is {self.parallel.enlarging_groups}"
            raise ConfigError(f"{asked}, but placing.stages is {self.placing.stages}, expected apart")


def check_stages(model: ModelConfig, placing: Placing) -> None:
    """ConfigError for stages of a model that cannot be placed so."""
    try:
        check_placing(model, placing)
    except ValueError as error:
        raise ConfigError(f"placing.{error}") from error


def _at_least(group: str, settings: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < least:
            raise ConfigError(f"{group}.{name} is {getattr(settings, name)}, expected at least {least}")


def _above_zero(group: str, settings: Any, name: str) -> None:
    if getattr(settings, name) <= 0:
        raise ConfigError(f"{group}.{name} is {getattr(settings, name)}, expected more than 0")


def _one_of(group: str, settings: Any, name: str, known: tuple[str, ...]) -> None:
    if getattr(settings, name) not in known:
        raise ConfigError(f"{group}.{name} is {getattr(settings, name)!r}, expected one of {', '.join(known)}")
