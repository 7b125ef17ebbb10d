"""Prompts are embedded once, in batches and ahead of need; the encoder goes when all is made, and can come back."""

from collections import Counter

from pipeline.board import Place
from pipeline.fleet import EncodeOrder, RenderOrder, Text
from pipeline.settings import ClusterSettings
from pipeline.summary import Snapshot
from tests.driving import asked_at, drive, embedded, orders, places
from tests.fakes import FakeFleet, Fault, MemoryRecorder, make_clip, make_clips


def test_500_clips_with_50_prompts_need_50_embeddings_and_then_no_encoder() -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt=f"prompt {n % 50}") for n in range(500)]
    recorder, fleet = MemoryRecorder(), FakeFleet(seconds={"encode": 1, "render": 1, "finish": 0.5})
    gone_after: list[int] = []

    def observe(snapshot: Snapshot) -> None:
        if fleet.released and not gone_after:
            gone_after.append(snapshot.num_succeeded)

    drive(clips, fleet, recorder, observe=observe)
    texts = [each.prompt for each in embedded(fleet) if isinstance(each, Text)]
    assert Counter(texts) == Counter(["blurry", *(f"prompt {n}" for n in range(50))])
    assert len(orders(fleet, EncodeOrder)) == 1 + 7  # of the first clip alone, then eight at a time
    assert [order.clip.clip_id for order in orders(fleet, RenderOrder)] == [clip.clip_id for clip in clips]
    assert list(recorder.records) == [clip.clip_id for clip in clips]
    assert (fleet.released, fleet.starts.count("encode-0")) == (["encode-0"], 1)
    assert gone_after[0] < 20


def test_the_first_clip_does_not_wait_for_a_whole_batch() -> None:
    fleet = FakeFleet()
    drive(make_clips(9), fleet, cluster=ClusterSettings(prompts_a_batch=3))
    first, second, *_ = (order.conditions for order in orders(fleet, EncodeOrder))
    assert [each.prompt for each in first] == ["a prompt for clip-0", "blurry"]
    assert [each.prompt for each in second] == [f"a prompt for clip-{n}" for n in (1, 2, 3)]


def test_where_not_all_can_be_kept_conditions_are_made_a_bounded_number_of_clips_ahead() -> None:
    fleet = FakeFleet(seconds={"encode": 0.1, "render": 10, "finish": 1})
    ahead: list[int] = []

    def observe(snapshot: Snapshot) -> None:
        ahead.append(len(embedded(fleet)) - len(orders(fleet, RenderOrder)))

    drive(make_clips(30), fleet, observe=observe, cluster=ClusterSettings(clips_encoded_ahead=4, max_kept_conditions=6))
    assert 4 <= max(ahead) <= 1 + 5 + 1  # "blurry", the window of 1 + 4 clips, the one that renders
    assert fleet.released == ["encode-0"], "what is left can be kept at last"


def test_pictures_are_made_one_by_one() -> None:
    fleet = FakeFleet()
    drive([make_clip(f"clip-{n}", row=n, picture=f"horse {n}") for n in range(3)], fleet)
    assert sorted(len(order.conditions) for order in orders(fleet, EncodeOrder)) == [1, 1, 1, 2, 2]


def test_the_encoder_comes_back_for_what_was_lost() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="render", nth=6, what="inputs")])
    outcome = drive(make_clips(9), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert len(embedded(fleet)) == 10 + 2
    assert (fleet.starts.count("encode-0"), fleet.released) == (2, ["encode-0"] * 2)


def test_encoders_that_were_sent_home_sleep_through_a_pause() -> None:
    fleet = FakeFleet(encoders=2)
    outcome = drive(make_clips(9), fleet, wish=asked_at(fleet, pause=(30, 60)))
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert Counter(fleet.starts) == {"encode-0": 1, "encode-1": 1, "render-0": 2, "finish-0": 2}


def test_a_poisonous_prompt_in_a_batch_costs_its_neighbours_nothing() -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt="boom" if n == 4 else None) for n in range(8)]
    recorder, fleet = MemoryRecorder(), FakeFleet(poison={"boom"})
    outcome = drive(clips, fleet, recorder)
    assert outcome.exit_code is None
    assert set(recorder.failures) == {"clip-4"}
    assert [each.stage for each in recorder.failures["clip-4"]] == ["encode"] * 3
    assert set(recorder.attempts.values()) == {1}


def test_a_batch_whose_encoder_was_preempted_stays_a_batch() -> None:
    clips = [make_clip(f"clip-{n}", row=n) for n in range(8)]
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="encode", nth=1, what="evict")])
    drive(clips, fleet, recorder)
    assert len(recorder.records) == 8
    assert [len(order.conditions) for order in orders(fleet, EncodeOrder)] == [2, 7, 1, 6]  # the next clip's go first
