"""Every notice once: through crashes, refusals, silence and a storage that is away. Webhook and hook are real ones."""

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.nightly import notices
from pipeline.nightly.channels import Channel, Hook, NotDelivered, Unsure, Webhook, channels
from pipeline.nightly.notices import EVENTS, Notice
from pipeline.nightly.outbox import Outbox
from pipeline.store import Store, open_store
from tests.pipeline.nightly.nights import Mailbox, SimClock, utc

NOTICE = notices.done("shots", night="2026-11-21", work="0123456789ab", num_clips=7)
PAYLOAD = NOTICE.payload(at=utc("2026-11-21T23:00"), inbox="in", output="out")


def outbox(folder: Path | Store, *to: Channel) -> Outbox:
    store = folder if isinstance(folder, Store) else open_store(str(folder))
    return Outbox(store, channels=to, clock=SimClock(utc("2026-11-21T23:00")), inbox="in", output="out")


def tell(folder: Path | Store, *to: Channel, notice: Notice = NOTICE, again: bool = False) -> None:
    """By a process of its own."""
    box = outbox(folder, *to)
    box.tell(notice)
    if again:
        box.send_unsent()
    box.close()


def test_a_notice_is_sent_once_to_each_channel(tmp_path: Path) -> None:
    first, second = Mailbox("webhook"), Mailbox("hook")
    box = outbox(tmp_path, first, second)
    for _ in range(3):
        box.tell(NOTICE)
    box.close()
    tell(tmp_path, first, second)
    assert [len(each.got) for each in (first, second)] == [1, 1]
    marker = json.loads((tmp_path / "notices" / "shots" / f"done-{'0123456789ab'}.webhook.json").read_text())
    assert (marker["state"], marker["payload"]["id"]) == ("sent", "shots/done-0123456789ab")


def test_a_crash_while_it_is_sent_does_not_send_it_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Gone(BaseException):
        pass

    class Dying(Mailbox):
        def send(self, body: bytes, *, payload: dict[str, Any]) -> None:
            super().send(body, payload=payload)
            raise Gone

    dying, well = Dying(), Mailbox()
    with pytest.raises(Gone):
        tell(tmp_path, dying)
    tell(tmp_path, well)
    assert (len(dying.got), len(well.got)) == (1, 0)
    assert "may not have reached its webhook: it is not sent twice" in caplog.text


def test_what_was_refused_is_sent_later_and_once(tmp_path: Path) -> None:
    box = Mailbox(refuses=2)
    tell(tmp_path, box)
    tell(tmp_path, box, notice=notices.stopped("other", night="2026-11-21", reason="disk full"))
    assert box.got == []
    for _ in range(2):
        later = outbox(tmp_path, box)
        later.send_unsent()
        later.close()
    assert [each["event"] for each in box.got] == ["failed", "done"]
    assert not [path for path in (tmp_path / "unsent").rglob("*") if path.is_file()]


def test_a_channel_that_refuses_is_not_asked_for_each_of_many(tmp_path: Path) -> None:
    box = Mailbox(refuses=6)
    for n in range(5):
        tell(tmp_path, box, notice=notices.done(f"m{n}", night="n", work="w", num_clips=1))
    later = outbox(tmp_path, box)
    later.send_unsent()
    later.close()
    assert box.refuses == 0  # one more try, not five


def test_silence_is_not_answered_with_a_second_notice(tmp_path: Path) -> None:
    box = Mailbox(unsure=1)
    tell(tmp_path, box)
    tell(tmp_path, box, again=True)
    assert len(box.got) == 1


def test_a_storage_that_is_away_does_not_silence_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise StoreError("cannot write: no space left")

    monkeypatch.setattr(Store, "put", refuse)
    monkeypatch.setattr(Store, "head", refuse)
    box = Mailbox()
    out = outbox(tmp_path, box)
    out.tell(NOTICE)
    out.tell(NOTICE)
    out.close()
    assert len(box.got) == 1


def test_the_payload_is_as_documented() -> None:
    assert list(PAYLOAD) == "format id event at night inbox output manifest text details".split()
    assert PAYLOAD["output"] == "out/shots"
    assert PAYLOAD["text"] == "shots is done: 7 clips"
    page = (Path(__file__).parents[3] / "docs" / "nightly.md").read_text()
    for word in (*PAYLOAD, *EVENTS):
        assert f"`{word}`" in page, word


def test_every_notice_has_the_details_that_its_row_of_the_page_names() -> None:
    now = utc("2026-11-22T06:00")
    said = [
        notices.done("a", night="n", work="w", num_clips=2),
        notices.clips_failed("a", night="n", work="w", num_clips=2, failed=["x"], reasons={}),
        notices.rejected("a", night="n", mark="m", reason="r", findings="f"),
        notices.stopped("a", night="n", reason="r"),
        notices.many_failed("a", night="n", work="w", num_failed=3, most=2),
        notices.budget_used(night="n", used=9, budget=10, share=0.9),
        notices.at_risk("a", night="n", work="w", must_finish_by=now, expected=None),
    ]
    page = (Path(__file__).parents[3] / "docs" / "nightly.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| `", "| | `kind`"))]
    for notice in said:
        kind = notice.details.get("kind")
        (row,) = [each for each in rows if (f"`kind` `{kind}`" in each if kind else f"| `{notice.event}`" in each)]
        named = set(re.findall(r"`(\w+)`", row.split(" | ")[2]))
        assert named == notice.details.keys() - {"kind"}, row
    assert {notice.event for notice in said} == set(EVENTS)


# The real thing.


@dataclass
class Receiver:
    """A web server that keeps what is posted to it."""

    answer: int = 200
    delay_s: float = 0.0
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((dict(self.headers), json.loads(body)))
            time.sleep(kept.delay_s)
            self.send_response(kept.answer)
            if kept.answer == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kept.address = f"http://127.0.0.1:{server.server_address[1]}/secret/path"
        yield kept
        server.shutdown()


def post(address: str, *, timeout_s: float = 5) -> None:
    Webhook(address=address, timeout_s=timeout_s).send(json.dumps(PAYLOAD).encode(), payload=PAYLOAD)


def test_a_webhook_gets_json_and_its_token(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPPYHORSE_WEBHOOK_TOKEN", "tellme")
    post(receiver.address)
    ((headers, body),) = receiver.got
    assert body == PAYLOAD
    assert headers["Authorization"] == "Bearer tellme"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == PAYLOAD["id"]


@pytest.mark.parametrize("answer", [302, 400, 401, 500, 503])
def test_any_other_answer_is_a_refusal_without_the_secret_path(receiver: Receiver, answer: int) -> None:
    receiver.answer = answer
    with pytest.raises(NotDelivered, match=f"127.0.0.1 answered {answer}") as caught:
        post(receiver.address)
    assert "secret" not in str(caught.value)
    assert len(receiver.got) == 1  # a redirect is not followed


def test_nobody_there_is_a_refusal_and_silence_is_not(receiver: Receiver) -> None:
    with pytest.raises(NotDelivered):
        post("http://127.0.0.1:9/nobody")
    receiver.delay_s = 1.0
    with pytest.raises(Unsure, match="did not answer"):
        post(receiver.address, timeout_s=0.2)


def run_hook(folder: Path, script: str, *, timeout_s: float = 20) -> None:
    path = folder / "hook.py"
    path.write_text(script)
    Hook(command=f"{sys.executable} {path} 'two words'", timeout_s=timeout_s).send(
        json.dumps(PAYLOAD).encode(), payload=PAYLOAD
    )


def test_a_hook_gets_json_its_words_and_an_environment(tmp_path: Path) -> None:
    run_hook(
        tmp_path,
        "import json, os, sys\n"
        f"kept = dict(body=json.load(sys.stdin), words=sys.argv[1:], event=os.environ['HAPPYHORSE_EVENT'])\n"
        f"json.dump(kept, open({str(tmp_path / 'kept.json')!r}, 'w'))\n",
    )
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == {"body": PAYLOAD, "words": ["two words"], "event": "done"}


def test_a_hook_that_fails_is_a_refusal_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(NotDelivered, match="ended with 1 no mail today"):
        run_hook(tmp_path, "import sys\nsys.exit('no mail today')")


def test_a_hook_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with pytest.raises(Unsure, match="did not end in"):
        run_hook(tmp_path, script, timeout_s=5)
    assert time.monotonic() - began < 30
    if (tmp_path / "pid").exists() and Path("/proc").is_dir():
        child = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        while is_alive(child):  # it has been told to die, and a busy machine takes its time
            assert time.monotonic() - began < 30
            time.sleep(0.05)


def is_alive(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"webhook": "ftp://host/x"}, "webhook is no address"),
        ({"webhook": "nonsense"}, "webhook is no address"),
        ({"hook": "/no/such/program"}, "expected a program that can be run"),
        ({"hook": "say 'it"}, "No closing quotation"),
    ],
)
def test_impossible_channels_are_refused_before_the_night(words: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        channels(webhook=words.get("webhook"), hook=words.get("hook"), timeout_s=1)


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPPYHORSE_WEBHOOK", "https://example.com/hook")
    (only,) = channels(webhook=None, hook=None, timeout_s=1)
    assert only == Webhook(address="https://example.com/hook", timeout_s=1)
