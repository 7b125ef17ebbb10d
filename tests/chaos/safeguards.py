"""What keeps a run safe, how to break it by one change of its source, and the test that has to notice.

`test_safeguards.py` breaks each in a copy of the tree. Text that is not there exactly once is a mistake of this table.
"""

from dataclasses import dataclass

DRIVER, NIGHTS, POLICY = "pipeline/test_driver.py::", "pipeline/test_nights.py::", "pipeline/test_policy.py::"
APART = "pipeline/test_apart.py::"


@dataclass(frozen=True)
class Safeguard:
    """`test` lies below tests/."""

    name: str
    file: str
    text: str
    instead: str
    test: str


SAFEGUARDS = (
    Safeguard(
        "a record is created, never replaced",
        "pipeline/ledger.py",
        "_to_json(_record_values(record)), create=True)",
        "_to_json(_record_values(record)))",
        "pipeline/test_ledger.py::test_the_first_attempt_stands_and_the_second_is_told",
    ),
    Safeguard(
        "a write whose answer was lost is known for ours",
        "pipeline/ledger.py",
        "if written or self.read_record(record.key).finished.attempt == record.finished.attempt:",
        "if written:",
        "pipeline/test_ledger.py::test_our_own_write_whose_answer_was_lost_is_recognised",
    ),
    Safeguard(
        "the lease is looked at before a record is written",
        "pipeline/recording.py",
        "        self.lease.check()\n        if self._checks_files:",
        "        if self._checks_files:",
        "pipeline/test_recording.py::test_a_run_that_lost_its_lease_writes_nothing_more",
    ),
    Safeguard(
        "success is said only when every row has a record",
        "pipeline/recording.py",
        'if self.outcomes.counts()["SUCCEEDED"] == len(self.manifest):',
        "if True:",
        "pipeline/test_recording.py::test_success_is_said_last_and_only_when_every_row_has_a_record",
    ),
    Safeguard(
        "success is taken back when work is left again",
        "pipeline/recording.py",
        "            self.store.delete(SUCCESS_KEY)\n",
        "",
        "pipeline/test_recording.py::test_success_is_taken_back_when_work_is_left_again",
    ),
    Safeguard(
        "a holder that renews its lease is left alone",
        "pipeline/lease/acquiring.py",
        "if (first.key, sign) == self._seen and now >= self._since + first.lease_s:",
        "if self._seen is not None:",
        "pipeline/lease/test_lease.py::test_a_holder_that_renews_is_left_alone",
    ),
    Safeguard(
        "a holder stops writing before others may take its lease",
        "pipeline/lease/claims.py",
        "HOLD_PART = 5 / 6",
        "HOLD_PART = 50",
        "pipeline/lease/test_lease.py::test_without_storage_a_lease_runs_out_and_nothing_is_written",
    ),
    Safeguard(
        "an answer that comes too late is void",
        "pipeline/driver.py",
        "if isinstance(event, Done) and _is_late(event, member.order):",
        "if False:",
        "pipeline/test_late_answers.py::test_an_attempt_that_was_given_up_is_not_recorded_however_late_it_answers",
    ),
    Safeguard(
        "no two attempts share a name",
        "pipeline/driver.py",
        "lambda: secrets.token_hex(4),",
        'lambda: "0badcafe",',
        DRIVER + "test_attempts_are_eight_hex_digits_and_never_shared",
    ),
    Safeguard(
        "a clip that kills its groups is given up",
        "pipeline/policy.py",
        "return Verdict.FAIL if count >= caps[newest.stage] else Verdict.RETRY",
        "return Verdict.RETRY",
        POLICY + "test_a_clips_history_decides_what_becomes_of_it",
    ),
    Safeguard(
        "and before the groups that it kills",
        "pipeline/settings.py",
        "if self.max_crew_losses <= self.max_clip_deaths:",
        "if False:",
        POLICY + "test_a_poisonous_clip_is_dropped_before_its_group",
    ),
    Safeguard(
        "a crew that is lost with every clip is not started for ever",
        "pipeline/policy.py",
        "< self._retry.max_crew_losses",
        "< 1_000_000",
        DRIVER + "test_a_group_that_kills_every_clip_stops_the_run_before_any_of_them_is_given_up",
    ),
    Safeguard(
        "one bad clip counts once against its crew",
        "pipeline/policy.py",
        "self._suspects[crew_id].add(suspect)",
        "self._without[crew_id] += 1",
        POLICY + "test_the_same_suspect_counts_once_and_different_ones_add_up",
    ),
    Safeguard(
        "a clip that lost its group lets others pass",
        "pipeline/policy.py",
        "return retry.max_crew_losses - 1",
        "return 0",
        POLICY + "test_a_requeued_clip_lets_enough_others_pass_to_tell_it_from_a_broken_group",
    ),
    Safeguard(
        "a node that fails everything is blocked",
        "pipeline/roster.py",
        "self._strikes.strike(event.node, member.stage, suspect, gpu=event.gpu)",
        "pass",
        NIGHTS + "test_a_node_that_fails_everything_gets_nothing_more_and_costs_no_clip",
    ),
    Safeguard(
        "and forgiven after a time",
        "pipeline/policy.py",
        "if strike.at <= oldest]",
        "if False]",
        NIGHTS + "test_a_blocked_node_is_used_again_after_a_time",
    ),
    Safeguard(
        "a GPU that fails everything is blocked",
        "pipeline/roster.py",
        "suspect, gpu=event.gpu)",
        "suspect)",
        NIGHTS + "test_a_gpu_that_fails_everything_gets_nothing_more_and_its_node_goes_on",
    ),
    Safeguard(
        "and its node is not",
        "pipeline/policy.py",
        "sum(strike.gpu not in gpus for strike in each.values()) >= full",
        "len(each) >= full",
        POLICY + "test_three_different_clips_lost_on_one_gpu_block_that_gpu_and_not_its_node",
    ),
    Safeguard(
        "work on other GPUs of its node is no excuse for it",
        "pipeline/policy.py",
        "self._strikes[place, stage][suspect] = Strike(self._clock(), gpu)",
        "self._strikes[node, stage][suspect] = Strike(self._clock(), gpu)",
        POLICY + "test_work_on_one_gpu_takes_no_strike_of_another_back",
    ),
    Safeguard(
        "a card is held back only where a group fits without it",
        "pipeline/crews/nodes.py",
        "        if fits(rest):\n",
        "        if True:\n",
        "pipeline/test_crews.py::test_a_card_is_held_back_as_long_as_a_group_fits_without_it",
    ),
    Safeguard(
        "and held again when its guard dies",
        "pipeline/crews/guards.py",
        "                    self._let_go(gpu, was_missed=not had_it)",
        "                    pass",
        "pipeline/test_guards.py::test_a_guard_that_dies_is_followed_by_another_unless_it_never_had_the_card",
    ),
    Safeguard(
        "a card that is somebody else's keeps no crew waiting for ever",
        "pipeline/crews/guards.py",
        "        return gpu not in self._missed or self._clock.now - self._missed[gpu] > AGAIN_S",
        "        return True",
        "pipeline/test_guards.py::test_what_is_somebody_elses_delays_nobody_for_ever_and_is_sought_again",
    ),
    Safeguard(
        "no more groups are started than there are clips",
        "pipeline/roster.py",
        "up[member.stage] < wanted.get(member.stage, len(self.members))",
        "True",
        NIGHTS + "test_a_run_starts_no_more_groups_than_it_has_clips_left",
    ),
    Safeguard(
        "what rests comes in for a group that is given up",
        "pipeline/roster.py",
        'each.state in ("starting", "ready")',
        'each.state != "resting"',
        NIGHTS + "test_a_group_that_was_not_needed_takes_the_place_of_one_that_is_given_up",
    ),
    Safeguard(
        "a fleet hears of a crew that is given up",
        "pipeline/roster.py",
        "        self._fleet.give_up(crew_id)\n",
        "",
        NIGHTS + "test_a_group_that_was_not_needed_takes_the_place_of_one_that_is_given_up",
    ),
    Safeguard(
        "a node that goes costs its clips nothing",
        "pipeline/policy.py",
        "FREE = frozenset({PREEMPTED, CONDITIONS_LOST, LATENTS_LOST})",
        "FREE = frozenset({CONDITIONS_LOST, LATENTS_LOST})",
        NIGHTS + "test_a_node_that_goes_costs_its_clip_nothing",
    ),
    Safeguard(
        "but not without an end",
        "pipeline/policy.py",
        "return Verdict.FAIL if count >= cap else Verdict.RETRY",
        "return Verdict.RETRY",
        NIGHTS + "test_a_clip_that_nodes_never_keep_is_given_up_at_last",
    ),
    Safeguard(
        "latents that went down with their node are rendered again",
        "pipeline/bookkeeper.py",
        "if track.place is Place.FINISHING and failure.kind != LATENTS_LOST:",
        "if track.place is Place.FINISHING:",
        DRIVER + "test_latents_that_went_down_are_rendered_again",
    ),
    Safeguard(
        "a clip that failed in one finisher goes to another",
        "pipeline/board.py",
        "if finisher not in each.failed_in or",
        "if True or",
        NIGHTS + "test_a_finisher_that_fails_oddly_with_every_clip_is_as_good_as_lost",
    ),
    Safeguard(
        "a run whose first clips all fail stops",
        "pipeline/policy.py",
        "if first is not None and failed >= first and not succeeded:",
        "if False:",
        NIGHTS + "test_a_run_whose_first_clips_all_fail_stops",
    ),
    Safeguard(
        "a group that takes no step is hung",
        "pipeline/crews/deadlines.py",
        "if step_s > limit_s:",
        "if False:",
        "pipeline/test_deadlines.py::test_a_group_is_overdue_by_its_step_or_by_its_clip",
    ),
    Safeguard(
        "a driver that waited for storage calls nobody late",
        "pipeline/crews/deadlines.py",
        "self.now += min(seconds, at_most)",
        "self.now += seconds",
        "pipeline/test_deadlines.py::test_time_in_which_nobody_looked_does_not_count",
    ),
    Safeguard(
        "groups wait while latents pile up",
        "pipeline/offers.py",
        'return unfinished >= self._cluster.clips_unfinished * max(crews["finish"], 1)',
        "return False",
        DRIVER + "test_groups_pause_while_latents_pile_up",
    ),
    Safeguard(
        "a clip's noise goes on in the next stage where it was left",
        "model/renderer.py",
        "noise=noise.state())",
        "noise=ClipNoise(request.seed, device=self.device).state())",
        "model/test_apart.py::test_a_draft_that_is_enlarged_elsewhere_is_the_clip",
    ),
    Safeguard(
        "a draft outlives the group that loses it",
        "pipeline/bookkeeper.py",
        "return Place.PENDING if track.draft is None or is_draft_lost else Place.DRAFTED",
        "return Place.PENDING",
        APART + "test_a_failure_of_the_second_stage_does_not_cost_the_first",
    ),
    Safeguard(
        "a draft that went down with its node is made again",
        "pipeline/bookkeeper.py",
        "is_draft_lost = track.place is Place.ENLARGING and failure.kind == LATENTS_LOST",
        "is_draft_lost = False",
        APART + "test_a_draft_that_went_down_is_made_again",
    ),
    Safeguard(
        "first stages wait while drafts pile up",
        "pipeline/offers.py",
        'return drafted >= self._cluster.clips_drafted * max(crews["enlarge"], 1)',
        "return False",
        APART + "test_drafts_do_not_pile_up_and_small_clips_do_not_wait_for_them",
    ),
    Safeguard(
        "a clip that cost an enlarging group lets others try before it",
        "pipeline/offers.py",
        "if not (track.behind and come) else None",
        "if True else None",
        APART + "test_a_clip_that_kills_enlarging_groups_fails_at_its_cap_and_the_others_go_on",
    ),
    Safeguard(
        "and does not keep them from coming",
        "pipeline/offers.py",
        "sum(not track.behind for track in self._board.drafted())",
        "len(self._board.drafted())",
        APART + "test_an_enlarging_group_that_kills_every_clip_stops_the_run_before_any_of_them_is_given_up",
    ),
    Safeguard(
        "nobody waits for drafts that nobody enlarges",
        "pipeline/driver.py",
        "                    self.books.leave_drafts(reason)\n",
        "                    pass\n",
        APART + "test_an_enlarging_group_that_kills_every_clip_stops_the_run_before_any_of_them_is_given_up",
    ),
    Safeguard(
        "groups that no clip needs are missed by nobody",
        "pipeline/driver.py",
        "if not counts[stage] and needed.get(stage, True):",
        "if not counts[stage]:",
        APART + "test_enlarging_groups_that_are_gone_stop_no_run_whose_clips_need_none",
    ),
    Safeguard(
        "drafts are finished before a run rests",
        "pipeline/offers.py",
        '"enlarge": drafted + board.count_large(Place.RENDERING),',
        '"enlarge": 0,',
        APART + "test_a_paused_run_finishes_its_drafts_also_after_a_loss_and_rests",
    ),
    Safeguard(
        "and get what was lost of their conditions",
        "pipeline/offers.py",
        '"encode": int(self.wants_encoder(crews, stopping=True)),',
        '"encode": 0,',
        APART + "test_a_paused_run_finishes_its_drafts_also_after_a_loss_and_rests",
    ),
    Safeguard(
        "which of an order's inputs went down is told by its reference",
        "pipeline/crews/losses.py",
        "return lost is not None and lost.object_ref_hex == ref.hex()",
        "return lost is not None",
        "pipeline/test_crews.py::test_which_of_an_orders_inputs_is_lost_is_told_by_its_reference",
    ),
    Safeguard(
        "an audit finds the manifest from any folder",
        "pipeline/manifest/sources.py",
        "    return absolute(uri)\n",
        "    return uri\n",
        "pipeline/manifest/test_sources.py::"
        "test_an_address_that_was_written_down_leads_to_the_same_files_from_anywhere",
    ),
    # With Ray, and slow.
    Safeguard(
        "an idle process that dies or freezes is noticed",
        "pipeline/crews/solo.py",
        "idle = bool(self.seats) and not self.calls",
        "idle = False",
        "cluster/test_groups.py::test_an_idle_process_that_is_killed_or_frozen_is_noticed_without_an_order",
    ),
    Safeguard(
        "a card that was lost with several clips is held",
        "pipeline/crews/guards.py",
        "        if self.gpu in found.cards:",
        "        if True:",
        "cluster/test_nodes.py::test_a_blocked_card_is_held_back_and_groups_get_others",
    ),
    Safeguard(
        "a node that joins takes the place of what was given up",
        "pipeline/crews/ray_fleet.py",
        "sum(crew_id not in self._given_up for crew_id in same)",
        "len(same)",
        "cluster/test_nodes.py::test_a_fixed_number_of_crews_grows_only_in_the_place_of_those_that_are_given_up",
    ),
    Safeguard(
        "what is lost is killed, also what is frozen",
        "pipeline/crews/crew.py",
        "            ray.kill(actor, no_restart=True)\n",
        "            pass\n",
        "cluster/test_groups.py::test_an_idle_process_that_is_killed_or_frozen_is_noticed_without_an_order",
    ),
    Safeguard(
        "the place of a lost group is given back",
        "pipeline/crews/ranks.py",
        "            remove_placement_group(self._placement)\n",
        "            pass\n",
        "cluster/test_groups.py::test_a_group_that_does_not_fit_says_what_is_missing_and_blocks_nobody",
    ),
)
