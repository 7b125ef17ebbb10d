"""What a sound track is: silence, hum, tone, beep or thud; and when its bursts begin, to a few milliseconds."""

import torch
from torch import Tensor
from torch.nn import functional

SILENT_RMS = 0.01  # -40 dB of full scale, over the whole clip
SILENT_PEAK = 0.03  # of the envelope: no faint beep either
LOW_HZ, TONE_HZ, BEEP_HZ = (40.0, 350.0), (750.0, 1250.0), (1300.0, 2100.0)  # the world's: 60 to 220, 1000, 1600
PURE = 0.7  # of the power must lie within one of them
ACTIVE = 0.25  # of the loudest envelope: quieter is a pause
STEADY, BURSTS = 0.85, 0.45  # at least, at most so much of the time is no pause
ENVELOPE_HZ = 1000
SMOOTH = 21  # milliseconds, a Hann window
PAUSE = 60  # milliseconds between two bursts, at least
MOST_BURSTS_HZ = 1.5  # the world's come once a second at most: a rattle is no beep at each bounce
STEADY_START_S = 0.01  # a sound that is there from the first moment did not begin in the clip


def _envelope(waveform: Tensor, *, sample_rate_hz: int) -> Tensor:
    """Amplitude at every millisecond: of the analytic signal, smoothed."""
    count = len(waveform)
    spectrum = torch.fft.fft(waveform.double())
    spectrum[1 : (count + 1) // 2] *= 2
    spectrum[count // 2 + 1 :] = 0
    amplitude = torch.fft.ifft(spectrum).abs().float()
    each = sample_rate_hz // ENVELOPE_HZ
    window = torch.hann_window(SMOOTH + 2, periodic=False)[1:-1]
    window = (window / window.sum())[None, None]
    steps = functional.avg_pool1d(amplitude[None, None], each)
    return functional.conv1d(functional.pad(steps, (SMOOTH // 2, SMOOTH // 2), mode="replicate"), window)[0, 0]


def _bursts(envelope: Tensor) -> list[tuple[int, int]]:
    """Stretches [start, end) that are no pause, in milliseconds."""
    active = (envelope > ACTIVE * float(envelope.max())).int()
    change = torch.diff(functional.pad(active, (1, 1))).tolist()
    starts = [n for n, step in enumerate(change) if step > 0]
    ends = [n for n, step in enumerate(change) if step < 0]
    joined: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        if joined and start - joined[-1][1] < PAUSE:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _is_silent(waveform: Tensor, envelope: Tensor) -> bool:
    return float(waveform.square().mean().sqrt()) < SILENT_RMS and float(envelope.max()) < SILENT_PEAK


def sound_of(waveform: Tensor, *, sample_rate_hz: int) -> str | None:
    """By loudness, by the range that holds most of the power, and by steadiness; None for any other sound."""
    envelope = _envelope(waveform, sample_rate_hz=sample_rate_hz)
    if _is_silent(waveform, envelope):
        return "silence"
    power = torch.fft.rfft(waveform.double()).abs().square()
    frequencies_hz = torch.linspace(0, sample_rate_hz / 2, len(power))
    share = {
        name: float(power[(frequencies_hz >= low) & (frequencies_hz <= high)].sum() / power.sum())
        for name, (low, high) in {"low": LOW_HZ, "tone": TONE_HZ, "beep": BEEP_HZ}.items()
    }
    bursts = _bursts(envelope)
    active = sum(end - start for start, end in bursts) / len(envelope)
    if active >= STEADY:
        steady = {"hum": share["low"], "tone": share["tone"]}
        return next((name for name, part in steady.items() if part >= PURE), None)
    if active <= BURSTS and len(bursts) <= MOST_BURSTS_HZ * len(envelope) / ENVELOPE_HZ:
        sparse = {"thud": share["low"], "beep": share["beep"]}
        return next((name for name, part in sparse.items() if part >= PURE), None)
    return None


def onset_times_s(waveform: Tensor, *, sample_rate_hz: int) -> tuple[float, ...]:
    """When each burst reaches half of its own loudest, in seconds."""
    envelope = _envelope(waveform, sample_rate_hz=sample_rate_hz)
    if _is_silent(waveform, envelope):
        return ()
    onsets = []
    for start, end in _bursts(envelope):
        half = float(envelope[start:end].max()) / 2
        at = start + int((envelope[start:end] >= half).int().argmax())
        if at / ENVELOPE_HZ <= STEADY_START_S:
            continue
        before, here = float(envelope[at - 1]), float(envelope[at])
        onsets.append((at + 0.5 - (here - half) / max(here - before, 1e-9)) / ENVELOPE_HZ)
    return tuple(onsets)
