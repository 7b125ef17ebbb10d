"""Figures over many verdicts: how well two kinds are told apart, and whether sounds fall on contacts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.foal.judge import Verdict

WITHIN_S = 0.120
NUM_SHUFFLES = 10_000
LEAST_CONTACTS = 2  # the fewest in a clip of the world


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Contacts against the nearest onset of sound."""

    num_contacts: int
    share_within: float  # of the contacts, WITHIN_S of an onset
    median_s: float  # of the distances without their signs; infinite where most contacts have no sound
    median_signed_s: float  # sound after contact is positive; of the contacts that have a sound
    onsets_a_contact: float
    p: float  # how often sounds shuffled between clips do as well


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Share of pairs in which the score that should be higher is; ties count half. ValueError without any pair."""
    if not higher or not lower:
        raise ValueError(f"{len(higher)} and {len(lower)} scores, expected some of each")
    a, b = torch.tensor(higher, dtype=torch.float64)[:, None], torch.tensor(lower, dtype=torch.float64)
    return float(((a > b).double() + 0.5 * (a == b).double()).mean())


def pair_auc(first: str, second: str, judged: Sequence[tuple[str, Verdict]]) -> float:
    """AUC of (asked-for shape, verdict) pairs for two shapes. A clip without one whole object counts as wrong."""

    def scores(wanted: str) -> list[float]:
        missing = -2.0 if wanted == first else 2.0
        found = [verdict.shape_scores for asked, verdict in judged if asked == wanted]
        return [missing if each is None else each[first] - each[second] for each in found]

    return auc(scores(first), scores(second))


def gaps_s(contacts_s: Sequence[float], onsets_s: Sequence[float]) -> list[float]:
    """For each contact the signed time to the nearest onset, infinite without any. No contacts: two that missed."""
    if not contacts_s or not onsets_s:
        return [float("inf")] * max(len(contacts_s), LEAST_CONTACTS)
    return [min((onset - contact for onset in onsets_s), key=abs) for contact in contacts_s]


def _hits(contacts_s: Sequence[float], onsets_s: Sequence[float]) -> int:
    return sum(abs(gap) <= WITHIN_S for gap in gaps_s(contacts_s, onsets_s))


def timing(clips: Sequence[tuple[Sequence[float], Sequence[float]]], *, seed: int = 0) -> Timing:
    """Over (contact times, onset times) of at least one clip."""
    gaps = [gap for contacts, onsets in clips for gap in gaps_s(contacts, onsets)]
    heard = [gap for gap in gaps if abs(gap) != float("inf")]
    hits = torch.tensor([[_hits(contacts, onsets) for _, onsets in clips] for contacts, _ in clips])
    order = torch.rand(NUM_SHUFFLES, len(clips), generator=torch.Generator().manual_seed(seed)).argsort(1)
    shuffled = hits[torch.arange(len(clips)), order].sum(1)
    as_good = int((shuffled >= hits.diagonal().sum()).sum())
    return Timing(
        num_contacts=len(gaps),
        share_within=sum(abs(gap) <= WITHIN_S for gap in gaps) / len(gaps),
        median_s=statistics.median(map(abs, gaps)),
        median_signed_s=statistics.median(heard) if heard else float("inf"),
        onsets_a_contact=sum(len(onsets) for _, onsets in clips) / len(gaps),
        p=(1 + as_good) / (1 + NUM_SHUFFLES),
    )
