"""Hours, bytes and cost: arithmetic by hand on small numbers, and what is said where nothing was measured."""

from dataclasses import replace

import pytest

from model.config import ModelConfig
from model.placing import Placing
from model.shapes import clip_shape
from pipeline.errors import ConfigError
from pipeline.manifest.index import NO_INPUT, IndexBuilder, index_of
from pipeline.planning.cards import CARDS
from pipeline.planning.estimate import SETUP_S, TP_EFFICIENCY, estimate
from pipeline.planning.history import Hardware, Kind, KindTimes, RunHistory
from pipeline.planning.measured import Measured
from pipeline.planning.planned import PlannedClips, PlannedKind, planned_clips
from pipeline.planning.target import Target, alike
from tests.clips import make_clip
from tests.configured import load_model
from tests.models import small_model
from tests.pipeline.planning.test_history import CPU, KIND, SECONDS, run_history

GPUS = Hardware(device="cuda", cards={"H100": 8}, cpu="x", cores=128, nodes=1)
SUM_S = sum(SECONDS.values())


def planned(*counts: tuple[Kind, int], model: ModelConfig | None = None, done: int = 0) -> PlannedClips:
    model = model or small_model()
    kinds = [
        PlannedKind(
            kind=kind,
            shape=clip_shape(model, resolution=kind.resolution, ratio=kind.ratio, duration_s=kind.duration_s),
            to_render=count,
            done=done,
            with_sound=count,
            text_tokens=20,
        )
        for kind, count in counts
    ]
    return PlannedClips(model=model, negative_tokens=5, kinds=tuple(kinds))


def on_gpus(run_id: str = "g1", **changes: object) -> RunHistory:
    return run_history(run_id, **({"hardware": GPUS, "tp": 1, "groups": 8, "finishers": 2, "encoders": 1} | changes))


def known(value: float | None) -> float:
    assert value is not None
    return value


def test_on_cpus_the_stages_share_the_cores_as_they_did_before() -> None:
    found = estimate(planned((KIND, 20)), [run_history()], Target())
    ratio = 52 / (10 * SUM_S)
    assert found.basis == "measured"
    assert found.seconds == pytest.approx(11 + 20 * SUM_S * ratio)
    assert (found.gpus, found.gpu_hours, found.cost) == (0, None, None)
    assert "if the machine is as free as it was then" in found.notes
    assert (found.num_bytes, found.bytes_measured) == (20_000, True)
    assert known(found.low_s) < known(found.seconds) < known(found.high_s) < 1.2 * known(found.seconds)


def test_runs_that_lost_time_do_not_say_how_stages_share_the_cores() -> None:
    wasted = run_history("r2", driving_s=500.0, num_failed=3)
    assert estimate(planned((KIND, 20)), [wasted, run_history()], Target()).seconds == pytest.approx(
        estimate(planned((KIND, 20)), [run_history()], Target()).seconds
    )


def test_runs_that_differ_count_by_their_clips() -> None:
    slower = {stage: 3 * seconds for stage, seconds in SECONDS.items()}
    other = KindTimes(kind=KIND, count=30, seconds=slower, num_bytes=5000.0)
    runs = [run_history(), run_history("r2", kinds=(other,), num_rendered=30)]
    for order in (runs, runs[::-1]):
        measured = Measured(planned((KIND, 1)), order)
        assert measured.num_bytes(planned((KIND, 1)).kinds[0]) == pytest.approx((10 * 1000 + 30 * 5000) / 40)
        assert sum(measured.totals().values()) == pytest.approx(SUM_S * (10 + 30 * 3) / 40)


def test_on_gpus_the_slowest_stage_decides() -> None:
    found = estimate(planned((KIND, 800)), [on_gpus()], Target(price=2.0))
    finishing = 800 * (1.0 + 0.75 + 0.25) / 2
    assert finishing > 800 * 4.0 / 8
    assert found.seconds == pytest.approx(11 + finishing, rel=0.02)
    assert "finish" in found.notes[0]
    assert found.gpu_hours == pytest.approx(known(found.seconds) * 8 / 3600)
    assert found.cost == pytest.approx(known(found.gpu_hours) * 2)


def test_other_numbers_of_the_same_cards_are_counted_with() -> None:
    few = estimate(planned((KIND, 800)), [on_gpus()], Target(gpus=2))
    assert (few.groups, few.gpus) == (2, 2)
    assert few.seconds == pytest.approx(11 + 800 * 4.0 / 2, rel=0.02)
    with pytest.raises(ConfigError, match="gpus is 1, expected at least 2"):
        estimate(planned((KIND, 800)), [on_gpus(tp=2, groups=4)], Target(gpus=1))


def test_cards_of_encoders_and_finishers_are_paid_for_and_render_nothing() -> None:
    placing = Placing(text="cards", text_cards=2, decode="card")
    ran = on_gpus(groups=4, text="cards", text_cards=2, decode="card")
    assert (ran.cards, on_gpus().cards, run_history().cards) == (4 + 2 + 2, 8, 2)
    assert alike([ran], Target()) == alike([on_gpus()], Target(placing=placing)) == []
    assert alike([ran], Target(placing=replace(placing, text_cards=1))) == []

    found = estimate(planned((KIND, 800)), [ran], Target(price=2.0, placing=placing))
    assert (found.gpus, found.groups, found.cards) == (8, 4, {"group": 4, "encoder": 2, "finisher": 2})
    assert found.gpu_hours == pytest.approx(known(found.seconds) * 8 / 3600)
    few = estimate(planned((KIND, 800)), [ran], Target(gpus=7, placing=placing, finishers=4))
    assert (few.gpus, few.groups, few.cards) == (7, 1, {"group": 1, "encoder": 2, "finisher": 4})
    assert few.seconds == pytest.approx(11 + 800 * 4.0, rel=0.02)
    with pytest.raises(ConfigError, match=r"gpus is 4, expected at least 5 \(group 1, encoder 2, finisher 2\)"):
        estimate(planned((KIND, 800)), [ran], Target(gpus=4, placing=placing))


def test_before_any_run_each_part_is_done_by_the_cards_that_are_there_for_it() -> None:
    clips = large("magihuman_distill", count=1000)
    flops = clips.flops(clips.left[0])
    speed = 989e12 * 0.5
    target = Target(card="h200", gpus=9, tp=2, utilisation=0.5, price=3.0, placing=Placing(text="cards", decode="card"))
    found = estimate(clips, [], target)
    assert (found.groups, found.cards) == (3, {"group": 6, "encoder": 1, "finisher": 1})
    assert found.cost == pytest.approx(known(found.seconds) * 9 / 3600 * 3), "the ninth has no work and is paid for"
    groups_s = 1000 * flops.denoise / (3 * 2 * speed * TP_EFFICIENCY[2])
    finisher_s, encoder_s = 1000 * flops.decode / speed, 1000 * (flops.text + flops.image) / speed
    assert known(found.seconds) - found.startup_s == pytest.approx(max(groups_s, finisher_s, encoder_s))
    more = estimate(clips, [], replace(target, gpus=40, finishers=1))
    assert known(more.seconds) - more.startup_s == pytest.approx(finisher_s)
    assert "the decoder's cards take longest; groups wait for them" in more.notes
    assert not any("far slower" in note for note in more.notes)
    half = estimate(clips, [], Target(card="h200", placing=Placing(decode="card"), tp=1))
    assert (half.gpus, half.groups) == (2, 1), "enough for one group"
    assert any(
        note.startswith("the text encoder's work is counted as if done on the groups' cards") for note in half.notes
    )


def test_kinds_that_no_run_measured_are_scaled_by_flops_and_pixels() -> None:
    more_steps = replace(KIND, steps=16)
    found = estimate(planned((more_steps, 10)), [run_history()], Target())
    assert found.basis == "scaled"
    one = estimate(planned((KIND, 10)), [run_history()], Target())
    ratio = 52 / (10 * SUM_S)
    assert known(found.seconds) - known(one.seconds) == pytest.approx(
        10 * 4.0 * ratio
    )  # the render stage alone doubles
    assert found.num_bytes == one.num_bytes
    assert "10 clips are of kinds that no run measured" in found.notes[-1]
    longer = estimate(planned((replace(KIND, duration_s=5), 10)), [run_history()], Target())
    assert longer.num_bytes == pytest.approx(10_000 * 5 / 3, rel=0.01)


def test_hardware_tp_and_threads_must_be_those_of_the_last_run() -> None:
    last = run_history("r3")
    runs = [last, run_history("r2", tp=1), run_history("r1", threads=2), run_history("r0"), on_gpus()]
    assert [run.run_id for run in alike(runs, Target())] == ["r3", "r0"]
    assert [run.run_id for run in alike(runs, Target(tp=1))] == ["r2"]
    assert alike(runs, Target(card="h100")) == [runs[-1]]
    assert alike(runs, Target(card="l4")) == []


def test_where_stages_lay_must_be_as_it_is_to_be() -> None:
    runs = [run_history("r3", stages="swapped"), run_history("r2")]
    assert alike(runs, Target()) == runs[1:]
    assert alike(runs, Target(placing=Placing(stages="swapped"))) == runs[:1]
    assert alike(runs, Target(placing=Placing(stages="offloaded"))) == []


APART = Placing(stages="apart")


def in_1080p(**changes: object) -> PlannedClips:
    kind = Kind(resolution="1080P", ratio="16:9", duration_s=5, steps=8, guided=False, image=False)
    return planned((replace(kind, **changes), 100), model=load_model("magihuman_1080p"))  # type: ignore[arg-type]


def test_stages_on_groups_of_their_own_take_as_long_as_the_slower_kind() -> None:
    clips = in_1080p()
    together, apart = (
        estimate(clips, [], Target(card="h200", gpus=24, tp=1, placing=placing)) for placing in (Placing(), APART)
    )
    assert (together.groups, together.enlarging_groups) == (24, 0)
    share = clips.enlarging_share(APART)
    assert apart.groups == 24
    assert apart.enlarging_groups == round(24 * share) < 24
    working_s = [known(each.seconds) - each.startup_s for each in (together, apart)]
    assert working_s[1] / working_s[0] == pytest.approx(share / (apart.enlarging_groups / 24), rel=1e-6)
    assert apart.startup_s < together.startup_s, "a rank reads the weights of one stage"
    with pytest.raises(ConfigError, match=r"3, expected at least 4 \(2 groups of 2 GPUs, one for each stage\); 3 x"):
        estimate(clips, [], Target(card="h200", gpus=3, tp=2, placing=APART))
    with pytest.raises(ConfigError) as few:
        estimate(clips, [], Target(card="l4", gpus=4, placing=APART))
    assert str(few.value) == (
        "gpus is 4, expected at least 8 (2 groups of 4 GPUs, one for each stage); "
        "4 x l4 are enough with placing=swapped at tp=4 and with placing=offloaded at tp=1 or 2 or 4"
    )
    not_fitting = estimate(clips, [], Target(card="l4", tp=2, placing=APART))
    assert "; on l4 it fits with placing=swapped at tp=4 or 8 and with placing=off" in not_fitting.notes[0]
    assert estimate(clips, [], Target(card="h200", tp=2, placing=APART)).gpus == 4


def test_runs_with_stages_apart_tell_of_such_runs_alone_and_of_each_kind_of_group() -> None:
    clips = in_1080p()
    (kind,) = (each.kind for each in clips.left)
    seconds = SECONDS | {"render": 8.0, "enlarge": 60.0}
    times = KindTimes(kind=kind, count=10, seconds=seconds, num_bytes=1000.0)
    run = on_gpus(groups=2, enlarging_groups=6, stages="apart", kinds=(times,))
    assert alike([run, on_gpus("g0")], Target()) != [run]
    found = estimate(clips, [run], Target(placing=APART))
    assert (found.groups, found.enlarging_groups, found.gpus) == (8, 6, 8)
    assert "the slowest stage is enlarge" in found.notes[0]
    assert known(found.seconds) - found.startup_s == pytest.approx(100 * 60 / 6, rel=0.02)
    scaled = Measured(in_1080p(steps=16), [run]).totals()
    assert scaled["render"] + scaled["enlarge"] > 100 * 68
    assert scaled["enlarge"] / (scaled["render"] + scaled["enlarge"]) == pytest.approx(
        in_1080p(steps=16).enlarging_share(APART), rel=1e-2
    )
    on_cpus = [replace(each, hardware=CPU) for each in (run, replace(run, run_id="g2", enlarging_groups=1))]
    assert alike(on_cpus, Target(placing=APART)) == on_cpus[:1], "who shares the cores matters"


def test_before_any_run_on_cpus_nothing_is_promised() -> None:
    found = estimate(planned((KIND, 20)), [], Target())
    assert (found.basis, found.seconds, found.gpu_hours) == ("none", None, None)
    assert "no estimate before a first run" in found.notes[0]
    kinds = (KIND, replace(KIND, resolution="128P"))
    plans = (planned((kind, 20), model=load_model("foal")) for kind in kinds)
    apart = [estimate(clips, [], Target(placing=APART)) for clips in plans]
    assert [(each.groups, each.enlarging_groups) for each in apart] == [(1, 0), (2, 1)], "as a run starts them"
    assert found.num_bytes > 0
    assert not found.bytes_measured


def test_before_any_run_on_gpus_flops_and_a_stated_utilisation_count() -> None:
    model = load_model("magihuman_distill")
    kind = Kind(resolution="256P", ratio="16:9", duration_s=5, steps=8, guided=False, image=False)
    clips = planned((kind, 1000), model=model)
    found = estimate(clips, [], Target(card="h200", gpus=4, utilisation=0.5, price=3.0))
    assert (found.basis, found.tp, found.groups) == ("flops", 1, 4)
    assert known(found.seconds) - found.startup_s == pytest.approx(clips.total_flops / (4 * 989e12 * 0.5))
    assert found.startup_s == pytest.approx(SETUP_S + 30.6, abs=0.1)
    assert found.high_s == pytest.approx(2 * known(found.seconds))
    assert "50% of the card's peak" in found.notes[0]
    assert estimate(clips, [], Target()).hardware.startswith("h100")


def test_nothing_left_takes_nothing() -> None:
    found = estimate(planned((KIND, 0), done=5), [run_history()], Target())
    assert (found.basis, found.seconds, found.num_bytes) == ("none", 0, 0)
    assert found.notes == ("nothing to render",)


def test_one_clip_is_one_clip() -> None:
    found = estimate(planned((replace(KIND, steps=16), 1)), [run_history()], Target())
    assert "1 clip is of a kind that no run measured" in found.notes[-1]


def test_a_kind_costs_the_same_before_and_after_its_clips_are_done() -> None:
    builder = IndexBuilder()
    for row, text_tokens in enumerate((3, 40)):
        builder.add(
            make_clip(str(row), row=row),
            settings_hash="0" * 16,
            image_code=NO_INPUT,
            sound_code=NO_INPUT,
            text_tokens=text_tokens,
        )
    index = builder.build()
    found = [planned_clips(index, small_model(), done=done, negative_tokens=7) for done in ((), (0,), (1,), (0, 1))]
    assert len({each.kinds[0].text_tokens for each in found}) == 1
    assert found[0].kinds[0].text_tokens == round(43 / 2)
    assert len({each.flops(each.kinds[0]).total for each in found}) == 1


def test_a_size_that_the_model_has_no_more_is_not_scaled_from() -> None:
    gone = KindTimes(kind=replace(KIND, resolution="9P"), count=3, seconds=SECONDS, num_bytes=1)
    assert estimate(planned((KIND, 1)), [run_history(kinds=(gone,))], Target()).basis == "none"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"card": "h1000"}, "card is 'h1000', expected one of a10g"),
        ({"gpus": 0}, "gpus is 0, expected at least 1"),
        ({"finishers": 0}, "finishers is 0, expected at least 1"),
        ({"utilisation": 40}, "utilisation is 40, expected more than 0 and at most 1"),
        ({"price": -1}, "price is -1"),
    ],
)
def test_impossible_targets_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Target(**values)  # type: ignore[arg-type]


def large(name: str = "magihuman_1080p", *, count: int = 10) -> PlannedClips:
    resolution = "1080P" if name == "magihuman_1080p" else "256P"
    kind = Kind(resolution=resolution, ratio="16:9", duration_s=5, steps=8, guided=False, image=False)
    return planned((kind, count), model=load_model(name))


def test_a_model_that_fits_no_group_of_a_card_says_so() -> None:
    kind = Kind(resolution="1080P", ratio="16:9", duration_s=15, steps=8, guided=False, image=False)
    found = estimate(planned((kind, 1), model=load_model("magihuman_1080p")), [], Target(card="l4", price=2.0))
    assert (found.basis, found.fit, found.tp) == ("none", "no", None)
    assert (found.seconds, found.gpu_hours, found.cost, found.a_clip_s) == (None, None, None, None)
    assert "no tp size fits l4" in found.notes[0]


def test_a_size_that_does_not_fit_the_card_gets_no_times_and_says_what_fits() -> None:
    found = estimate(large(), [], Target(card="a10g", tp=1, gpus=8, price=2.0))
    assert (found.basis, found.fit, found.tp) == ("none", "no", 1)
    assert (found.seconds, found.low_s, found.gpu_hours, found.cost) == (None, None, None, None)
    assert "magihuman_1080p does not fit a10g at tp=1, which needs 72.5 GB" in found.notes[0]
    assert "a10g holds it at tp=8" in found.notes[0]
    assert "cards that hold tp=1: a100, h100, h200" in found.notes[0]


def test_8_bit_floats_fit_no_card_that_cannot_multiply_them() -> None:
    model = load_model("magihuman_distill", "model.fp8=true")
    kind = Kind(resolution="256P", ratio="16:9", duration_s=5, steps=8, guided=False, image=False)
    found = {card: estimate(planned((kind, 1), model=model), [], Target(card=card)) for card in ("a100", "l40s")}
    assert (found["a100"].fit, found["l40s"].fit, found["l40s"].tp) == ("no", "fits", 1)
    assert found["a100"].notes[0] == (
        "model.fp8: a100 cannot multiply 8-bit floats; cards that can: l4, l40s, h100, h200"
    )


def test_what_fits_only_if_activations_are_no_larger_than_said_is_tight() -> None:
    found = estimate(large(), [], Target(card="h100", tp=1))
    tight, roomy = found, estimate(large(), [], Target(card="h200", tp=1))
    assert (tight.fit, roomy.fit) == ("tight", "fits")
    assert tight.seconds is not None
    assert any(note.startswith("tight: tp=1 needs 72.5 GB") for note in tight.notes)
    assert not any("tight" in note for note in roomy.notes)


def test_larger_clips_than_were_measured_may_not_fit_the_same_cards() -> None:
    small = Kind(resolution="256P", ratio="16:9", duration_s=5, steps=8, guided=False, image=False)
    times = (KindTimes(kind=small, count=9, seconds=SECONDS, num_bytes=1000.0),)
    ran = on_gpus(hardware=replace(GPUS, cards={"A10G": 8}), kinds=times)
    found = estimate(large(), [ran], Target())
    assert (found.basis, found.fit, found.seconds) == ("none", "no", None)
    measured = estimate(planned((small, 1), model=load_model("magihuman_1080p")), [ran], Target())
    assert (measured.basis, measured.fit) == ("measured", "fits")


def test_cards_are_known_by_memory_and_speed() -> None:
    assert {card.gb for card in CARDS.values()} == {24, 40, 48, 80, 141}


def test_rows_are_counted_by_kind() -> None:
    clips = [
        make_clip("a", row=0),
        make_clip("b", row=1, steps=4),
        make_clip("c", row=2, audio=False),
        make_clip("d", row=3, duration_s=5),
        make_clip("e", row=4),
    ]
    index = index_of(clips, [f"{n:016x}" for n in range(5)])
    found = planned_clips(index, small_model(), done=[3], skipped=[4], negative_tokens=7)
    counted = {
        (each.kind.duration_s, each.kind.steps): (each.to_render, each.done, each.with_sound) for each in found.kinds
    }
    assert counted == {(3, 8): (2, 0, 1), (3, 4): (1, 0, 1), (5, 8): (0, 1, 0)}
    assert (found.to_render, found.done) == (3, 1)
    assert {each.kind.duration_s for each in found.left} == {3}
    guided_first = found.flops(found.left[0]).stages[0]
    assert guided_first.forwards == 2 * found.left[0].kind.steps
    assert found.total_flops == sum(each.to_render * found.flops(each).total for each in found.kinds)


def test_hardware_of_the_last_run_decides_before_other_hardware() -> None:
    cpu_first = estimate(planned((KIND, 4)), [run_history("new"), on_gpus(run_id="old")], Target())
    assert cpu_first.hardware.startswith(str(CPU))
