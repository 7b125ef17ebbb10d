"""Where every clip of a run is. Each is in exactly one place, and moves only along the arrows:

PENDING -> RENDERING -> RENDERED -> FINISHING -> SUCCEEDED; back to PENDING or RENDERED after a loss; FAILED from any.
Where super-resolution has groups of its own, RENDERING -> DRAFTED -> ENLARGING -> RENDERED for the clips that go
through it; back to DRAFTED after a loss, for as long as their drafts are there.
Pure bookkeeping: it decides nothing and waits for nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from pipeline.fleet import Handle
from pipeline.types import Clip, ClipFailure


class Place(Enum):
    PENDING = auto()
    RENDERING = auto()
    DRAFTED = auto()  # its draft waits for an enlarging group
    ENLARGING = auto()
    RENDERED = auto()  # its latents wait for a finisher
    FINISHING = auto()
    SUCCEEDED = auto()
    FAILED = auto()


MOVES: dict[Place, frozenset[Place]] = {
    Place.PENDING: frozenset({Place.RENDERING, Place.FAILED}),
    Place.RENDERING: frozenset({Place.RENDERED, Place.DRAFTED, Place.PENDING, Place.FAILED}),
    Place.DRAFTED: frozenset({Place.ENLARGING, Place.PENDING, Place.FAILED}),
    Place.ENLARGING: frozenset({Place.RENDERED, Place.DRAFTED, Place.PENDING, Place.FAILED}),
    Place.RENDERED: frozenset({Place.FINISHING, Place.FAILED}),
    Place.FINISHING: frozenset({Place.SUCCEEDED, Place.RENDERED, Place.DRAFTED, Place.PENDING, Place.FAILED}),
    Place.SUCCEEDED: frozenset(),
    Place.FAILED: frozenset(),
}


@dataclass
class Track:
    """One clip's way so far."""

    clip: Clip
    place: Place = Place.PENDING
    failures: list[ClipFailure] = field(default_factory=list)
    failed_in: set[str] = field(default_factory=set)  # finishers that did not get through with it
    draft: Handle | None = None  # held from DRAFTED until it is recorded
    behind: int = 0  # so many other drafts are enlarged before it, if they come
    latents: Handle | None = None  # held from RENDERED until it is recorded
    attempt: str | None = None  # of the finisher that has it now; answers of any other are void
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, of the attempt that counts

    @property
    def is_large(self) -> bool:
        """Whether it goes through super-resolution."""
        return self.clip.shape.first_latent is not None


class Board:
    def __init__(self, clips: Sequence[Clip]) -> None:
        self.tracks = {clip.clip_id: Track(clip) for clip in clips}
        self._pending = [clip.clip_id for clip in reversed(clips)]  # the next one is last: both ends are cheap
        self._small_pending = [clip_id for clip_id in self._pending if not self.tracks[clip_id].is_large]
        self._drafted: list[str] = []
        self._rendered: list[str] = []
        self._in_flight: dict[str, None] = {}  # in the order in which they left the queue
        self._counts = Counter({Place.PENDING: len(clips)})
        self._large = Counter({Place.PENDING: sum(track.is_large for track in self.tracks.values())})

    def count(self, *places: Place) -> int:
        return sum(self._counts[place] for place in places)

    def count_large(self, *places: Place) -> int:
        """Of those that go through super-resolution."""
        return sum(self._large[place] for place in places)

    def pending(self, num_clips: int) -> Iterator[Track]:
        """The first few clips of the queue, in order."""
        return (self.tracks[clip_id] for clip_id in islice(reversed(self._pending), num_clips))

    def small_pending(self, num_clips: int) -> Iterator[Track]:
        """The first few of those that do not go through super-resolution, however far behind."""
        return (self.tracks[clip_id] for clip_id in islice(reversed(self._small_pending), num_clips))

    def drafted(self) -> list[Track]:
        """In the order in which they are to be enlarged."""
        return sorted((self.tracks[clip_id] for clip_id in self._drafted), key=lambda track: track.behind)

    def before_enlarging(self) -> list[Track]:
        """In flight, and on their way to an enlarging group."""
        tracks = (self.tracks[clip_id] for clip_id in self._in_flight)
        return [track for track in tracks if track.is_large and track.place in (Place.RENDERING, Place.DRAFTED)]

    def first_rendered(self, *, finisher: str, others: Collection[str]) -> Track | None:
        """For that finisher: none that failed in it before, while there are `others` which have not tried yet."""
        rendered = (self.tracks[clip_id] for clip_id in self._rendered)
        return next(
            (each for each in rendered if finisher not in each.failed_in or each.failed_in.issuperset(others)), None
        )

    def in_flight(self) -> tuple[str, ...]:
        return tuple(self._in_flight)

    def in_place(self, *places: Place) -> list[Track]:
        return [track for track in self.tracks.values() if track.place in places]

    def move(self, track: Track, place: Place, *, behind: int = 0) -> None:
        """To its next place; back to PENDING or DRAFTED, `behind` so many other clips."""
        if place not in MOVES[track.place]:
            raise AssertionError(f"clip {track.clip.clip_id} cannot go from {track.place.name} to {place.name}")
        if track.place is Place.PENDING:
            for queue in self._queues(track):
                from_head = next(n for n, each in enumerate(reversed(queue), 1) if each == track.clip.clip_id)
                del queue[-from_head]
        if track.place is Place.DRAFTED:
            self._drafted.remove(track.clip.clip_id)
        if track.place is Place.RENDERED:
            self._rendered.remove(track.clip.clip_id)
        for counts, counted in ((self._counts, 1), (self._large, int(track.is_large))):
            counts[track.place] -= counted
            counts[place] += counted
        track.place = place
        if place is Place.PENDING:
            for queue in self._queues(track):
                queue.insert(max(len(queue) - behind, 0), track.clip.clip_id)
        if place is Place.DRAFTED:
            self._drafted.append(track.clip.clip_id)
            track.behind, track.latents = behind, None
        if place is Place.RENDERED:
            self._rendered.append(track.clip.clip_id)
        if place in (Place.PENDING, Place.SUCCEEDED, Place.FAILED):
            track.draft = track.latents = None
            self._in_flight.pop(track.clip.clip_id, None)
        else:
            self._in_flight[track.clip.clip_id] = None
        if place is not Place.FINISHING:
            track.attempt = None

    def _queues(self, track: Track) -> tuple[list[str], ...]:
        """That it waits in while it is PENDING."""
        return (self._pending,) if track.is_large else (self._pending, self._small_pending)
