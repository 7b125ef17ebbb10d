"""What is known of one night: how each manifest of the inbox stands, and which of them may still be started.

All of it may be forgotten; it keeps a night from looking twice at what has not changed, and from going in circles.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pipeline.counting import counted
from pipeline.errors import ManifestError, StoreError
from pipeline.nightly import notices
from pipeline.nightly.agenda import Room, Work, judge
from pipeline.nightly.inbox import Found, find_manifests, no_longer_aside, problem_of, set_aside, set_aside_before
from pipeline.nightly.outbox import Outbox
from pipeline.nightly.renderer import Look, Renderer
from pipeline.nightly.settings import NightlySettings
from pipeline.nightly.windows import Night
from pipeline.store import Store
from pipeline.summary import ENVIRONMENT, HELD, SOME_FAILED, STOPPED, SUCCESS, RunSummary

State = Literal["done", "failed", "rejected", "left", "held", "stopped"]
Standing = tuple[State, str]  # and a line for people
CODES: Mapping[State, int] = {  # the gravest first
    "stopped": ENVIRONMENT,
    "held": HELD,
    "left": STOPPED,
    "rejected": SOME_FAILED,
    "failed": SOME_FAILED,
    "done": SUCCESS,
}
log = logging.getLogger(__name__)


class Tonight:
    def __init__(
        self,
        night: Night,
        *,
        settings: NightlySettings,
        inbox: Store,
        output: Store,
        renderer: Renderer,
        outbox: Outbox,
    ) -> None:
        self.night = night
        self.standings: dict[str, Standing] = {}  # by file
        self.has_unsettled = False
        self._settings, self._inbox, self._output = settings, inbox, output
        self._renderer, self._outbox = renderer, outbox
        self._seen: dict[str, tuple[str, Look | Standing]] = {}  # file -> its mark, what was seen
        self._found: dict[str, Found] = {}  # by name, those that may be rendered
        self._ended: dict[str, tuple[str, int]] = {}  # name -> the file's mark, exit code; not started again tonight
        self._put_off: dict[str, tuple[datetime, Standing]] = {}  # name -> until when, why
        self._reasons: dict[str, Mapping[str, str]] = {}  # name -> failed clips

    @property
    def exit_code(self) -> int:
        present = {state for state, _ in self.standings.values()}
        return next((CODES[state] for state in CODES if state in present), SUCCESS)

    def look_around(self, now: datetime, room: Room) -> list[Work]:
        """Every manifest gets a standing. What may be started, if there is room."""
        before, self.standings, self._found = self.standings, {}, {}
        works = []
        found = find_manifests(self._inbox)
        unsettled = [each for each in found if self._is_unsettled(each, now)]
        self.has_unsettled = bool(unsettled)
        for each in found:
            look = ("left", "was written a moment ago") if each in unsettled else self._look(each)
            if not isinstance(look, Look):
                self.standings[each.file] = look  # type: ignore[assignment]
                continue
            self._found[each.name] = each
            may_start = self._may_start(each, look, now)
            self.standings[each.file] = self._standing(each, look, room if may_start else None)
            works += [look.work] if may_start else []
        for file, (state, line) in self.standings.items():
            if before.get(file) != (state, line):
                log.info("%s is %s: %s", file, state, line)
        return works

    def taken(self, name: str) -> tuple[Found, Look]:
        """What is rendered now. What others would take is known better after it, so they are looked at again."""
        found = self._found[name]
        look = self.look_of(name)
        self._seen = {file: seen for file, seen in self._seen.items() if not _is_open(seen[1])}
        return found, look

    def look_of(self, name: str) -> Look:
        look = self._seen[self._found[name].file][1]
        assert isinstance(look, Look)
        return look

    def put_off(self, found: Found, state: State, reason: str, *, until: datetime) -> None:
        self._put_off[found.name] = until, (state, reason)

    def ended(self, found: Found, look: Look, summary: RunSummary) -> None:
        """It is not started again tonight, unless its file changes."""
        self._put_off.pop(found.name, None)
        self._ended[found.name] = found.mark, summary.exit_code
        self._reasons[found.name] = summary.failed
        if summary.exit_code == SOME_FAILED:
            self._tell_of_failed(found, look, tuple(summary.failed))

    def set_aside(self, found: Found, error: ManifestError) -> Standing:
        where = set_aside(self._output, found, error)
        num, lines = len(error.findings) + sum(error.more.values()), str(error).splitlines()
        said = f"{counted(num, 'problem')}, the first: {lines[1].strip()}"
        notice = notices.rejected(found.name, night=self.night.name, mark=found.mark, reason=said, findings=where)
        self._outbox.tell(notice)
        return "rejected", f"{said}; all are in {where}"

    def _is_unsettled(self, found: Found, now: datetime) -> bool:
        """Objects in storage appear whole."""
        age = now - found.written_at
        return "://" not in self._inbox.uri and timedelta() <= age < timedelta(seconds=self._settings.settle_s)

    def _look(self, found: Found) -> Look | Standing:
        known = self._seen.get(found.file)
        if known is not None and known[0] == found.mark:
            return known[1]
        seen: Look | Standing
        try:
            if found.problem is not None:
                raise problem_of(found)
            seen = self._renderer.look(found)
        except ManifestError as error:
            seen = self.set_aside(found, error)
        except StoreError as error:
            return "stopped", str(error)  # looked at again the next time
        self._seen[found.file] = found.mark, seen
        if isinstance(seen, Look):
            no_longer_aside(self._output, {found.name, found.file} & set_aside_before(self._output))
            self._tell_of_end(found, seen)
        return seen

    def _may_start(self, found: Found, look: Look, now: datetime) -> bool:
        if not look.num_left or self._ended.get(found.name, ("", 0))[0] == found.mark:
            return False
        return found.name not in self._put_off or self._put_off[found.name][0] <= now

    def _standing(self, found: Found, look: Look, room: Room | None) -> Standing:
        """`room`: what there is for one that may be started."""
        if not look.num_left:
            many = f"{len(look.failed)} of {counted(look.num_clips, 'clip')} failed"
            return ("failed", many) if look.failed else ("done", counted(look.num_clips, "clip"))
        if found.name in self._put_off:
            return self._put_off[found.name][1]
        left = f"{look.num_left} of {counted(look.num_clips, 'clip')} to render"
        if self._ended.get(found.name) == (found.mark, SOME_FAILED):  # they are tried again the next night
            return "failed", left
        verdict = judge(look.work, room, split=self._settings.split == "any") if room is not None else None
        return "left", f"{left}: {verdict.reason}" if verdict and verdict.reason else left

    def _tell_of_end(self, found: Found, look: Look) -> None:
        """Follows from what is recorded: a crash between the last clip and its notice loses nothing."""
        if look.num_left:
            return
        if look.failed:
            self._tell_of_failed(found, look, look.failed)
            return
        notice = notices.done(found.name, night=self.night.name, work=look.digest, num_clips=look.num_clips)
        self._outbox.tell(notice)

    def _tell_of_failed(self, found: Found, look: Look, failed: tuple[str, ...]) -> None:
        notice = notices.clips_failed(
            found.name,
            night=self.night.name,
            work=look.digest,
            num_clips=look.num_clips,
            failed=failed,
            reasons=self._reasons.get(found.name, {}),
        )
        self._outbox.tell(notice)


def _is_open(seen: Look | Standing) -> bool:
    return isinstance(seen, Look) and bool(seen.num_left)
