"""What the driver needs of machines, as a Protocol and a few plain values. No Ray, no torch.

A crew is an encoder, a render group, an enlarging group or a finisher: it starts, carries out one order at a time, and
is lost as one.
Every verb of a fleet returns at once; what came of it is an event.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pipeline.types import Clip, ClipFailure, Finished, GroupStatus, ImageRef, SoundRef, Stage

# A reference to latents or an embedding, wherever they lie. The driver passes it on and never looks inside.
Handle: TypeAlias = object

CONDITIONS_LOST = "ConditionsLost"  # kind of a failure: the node that held them is gone, whoever asked for them is well
LATENTS_LOST = "LatentsLost"
OUT_OF_MEMORY = "OutOfMemory"  # of the card, on every rank alike
PREEMPTED = "Preempted"  # its node went away: neither the clip's fault nor the crew's

# died: a process ended on a node that lives. hung: it missed a deadline. preempted: its node is gone, drains, or
# cannot be reached. unplaced: there was no room for it.
LossKind: TypeAlias = Literal["died", "hung", "preempted", "unplaced"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt, positive or negative, to be embedded."""

    prompt: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A first frame to be encoded at the size of a clip's latents; the same picture and size are the same condition."""

    identity: str
    latent_height: int
    latent_width: int
    image: ImageRef = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A given sound to be encoded as the latents of a clip of so many seconds."""

    identity: str
    duration_s: int
    num_latents: int
    sound: SoundRef = field(compare=False, repr=False)


Condition: TypeAlias = Text | Picture | Sound


def conditions_of(clip: Clip) -> dict[str, Condition]:
    """What a clip is conditioned on, by role.

    text; negative where a stage is guided; for image-to-video image, at the first stage's size, and large_image, at
    that of super-resolution; sound where it is given.
    """
    roles: dict[str, Condition] = {"text": Text(prompt=clip.prompt)}
    if clip.negative_prompt is not None:
        roles["negative"] = Text(prompt=clip.negative_prompt)
    if clip.image is not None:
        roles["image"] = _picture(clip.image, clip.shape.first_latent or clip.shape.video_latent)
        if clip.shape.first_latent is not None:
            roles["large_image"] = _picture(clip.image, clip.shape.video_latent)
    if clip.audio_in is not None:
        roles["sound"] = Sound(
            identity=clip.audio_in.identity,
            duration_s=clip.duration_s,
            num_latents=clip.shape.audio_latent[0],
            sound=clip.audio_in,
        )
    return roles


def _picture(image: ImageRef, latent: tuple[int, int, int, int]) -> Picture:
    return Picture(identity=image.identity, latent_height=latent[2], latent_width=latent[3], image=image)


@dataclass(frozen=True, kw_only=True)
class EncodeOrder:
    """Conditions that are made one after the other, none of them seeing the others. All are made, or none."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True)
class RenderOrder:
    clip: Clip
    conditions: Mapping[str, Handle]  # by role
    drafts: bool = False  # the first stage alone: what comes of it is a draft, for an enlarging group


@dataclass(frozen=True, kw_only=True)
class EnlargeOrder:
    clip: Clip
    draft: Handle
    conditions: Mapping[str, Handle]  # by role


@dataclass(frozen=True, kw_only=True)
class FinishOrder:
    clip: Clip
    attempt: str  # part of the files' names; never used twice
    latents: Handle


Order: TypeAlias = EncodeOrder | RenderOrder | EnlargeOrder | FinishOrder


@dataclass(frozen=True, kw_only=True, order=True)
class Gpu:
    """One card of the cluster."""

    node: str  # id
    number: str  # there, as Ray says it

    def __str__(self) -> str:
        return f"GPU {self.number} of node {self.node[:8]}"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The crew takes orders from now on."""

    crew_id: str
    nodes: tuple[str, ...] = ()  # ids of those that its actors are on
    gpus: tuple[Gpu, ...] = ()  # that they have


@dataclass(frozen=True, kw_only=True)
class Done:
    """The crew's order is carried out; it takes the next one.

    The result is a tuple of handles (encode: one a condition), a handle (render, enlarge) or `Finished`.
    """

    crew_id: str
    result: Handle | Finished
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The crew lives and takes the next order, but this one failed."""

    crew_id: str
    failure: ClipFailure


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The crew, and the order it had, are gone. What is left of it waits for its next start, or removes itself soon.

    `fatal` names the error class when starting it again cannot help (wrong weights, storage that says no).
    """

    crew_id: str
    reason: str
    kind: LossKind = "died"
    node: str | None = None  # id of the culprit's, where a culprit is known
    gpu: Gpu | None = None  # the culprit's, where it has one
    fatal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Another crew fits since a node joined. It may be started."""

    crew_id: str
    stage: Stage


Event: TypeAlias = Ready | Done | Refused | Lost | Joined


class Fleet(Protocol):
    """Crews by id. An id keeps its place for a whole run: after `Lost` it may be started again."""

    def crews(self) -> Mapping[str, Stage]:
        """The crews that fit, and the stage that each serves.

        Where any enlarges, render groups hold the first stage alone; where none does, they enlarge what they render.
        """
        ...

    def start(self, crew_id: str, /) -> None:
        """Answered by Ready or Lost."""
        ...

    def offer(self, crew_id: str, order: Order, /) -> None:
        """Answered by Done, Refused or Lost. Only to a crew that is ready and has no order."""
        ...

    def wait(self, timeout_s: float, /) -> list[Event]:
        """Events so far, at once if there are any, else after at most `timeout_s`. Deadlines are checked in here."""
        ...

    def avoid(self, nodes: Collection[str], gpus: Collection[Gpu], /) -> None:
        """From now on no crew is started on these nodes (ids) and cards, all that there are; what works there goes on.

        Where nothing else in the cluster could hold a crew they are used after all: a slow run is better than none.
        """
        ...

    def release(self, crew_id: str, /) -> None:
        """Ends a crew that has no order, so that others can use its place. It may be started again."""
        ...

    def give_up(self, crew_id: str, /) -> None:
        """It is lost or has to make room, and is not started again: on a node that joins another takes its place.

        Not while it has an order.
        """
        ...

    def groups(self) -> tuple[GroupStatus, ...]: ...

    def close(self) -> None:
        """Ends all crews, whatever they are doing."""
        ...
