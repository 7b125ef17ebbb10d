"""The actor that makes delivered files of latents."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import GroupLost, OutOfMemory
from pipeline.publication import upload
from pipeline.scratch import scratch_folder, sweep
from pipeline.store import open_store
from pipeline.types import Clip, ClipFailure, Finished
from pipeline.worker import Seat, Workplace, as_data, begin, load_fitted, seat

if TYPE_CHECKING:
    from model.request import Latents
    from model.shapes import ClipShape


class Finisher:
    """Latents to delivered files: decoded by windows into ffmpeg, probed, uploaded under names of this attempt."""

    def __init__(self, place: Workplace) -> None:
        begin(place)
        self.place = place
        self.has_card = place.device == "cuda" and place.placing.finisher_cards > 0
        self.store = open_store(place.output, place.storage)

    def where(self) -> Seat:
        return seat()

    def start(self) -> None:
        """GroupLost where its card does not hold the decoders; another node's may."""
        import torch

        from pipeline.requests import smallest_shape

        try:
            self._load()
        except torch.OutOfMemoryError as error:
            message = self._shortage(error, smallest_shape(self.place.model))
            raise GroupLost(f"loading, for the smallest clip: {message}") from None
        sweep()  # what killed finishers have left on this node

    def _load(self) -> None:
        from model.codecs import build_audio_decoder, build_video_decoder
        from pipeline.weights.opening import open_weights, weights_errors

        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            device = "cuda:0" if self.has_card else "cpu"  # Ray shows it its own card alone
            self.video = build_video_decoder(self.place.model, reader, device=device)
            self.audio = build_audio_decoder(self.place.model, reader, device=device)

    def finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished | ClipFailure:
        return as_data("finish", lambda: self._finish_within(clip, attempt, latents))

    def _finish_within(self, clip: Clip, attempt: str, latents: "Latents") -> Finished:
        """What its card does not hold is the clip's failure; the finisher goes on with the next one."""
        import torch

        try:
            return self._finish(clip, attempt, latents)
        except torch.OutOfMemoryError as error:
            message = self._shortage(error, clip.shape)
        if self.has_card:
            torch.cuda.empty_cache()  # the error is gone, and its frames with what they held
        raise OutOfMemory(message)

    def _shortage(self, error: Exception, shape: "ClipShape") -> str:
        import torch

        from pipeline.shortage import decoder_shortage

        look = torch.cuda.mem_get_info if self.has_card else None
        return decoder_shortage(error, model=self.place.model, placing=self.place.placing, shape=shape, look=look)

    def _finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished:
        from pipeline.media import check_probe, encode_clip, probe_mp4

        began = time.monotonic()
        frames = _Timed(window.numpy() for window in self.video.decode(latents.video))
        waveform = self._waveform(clip, latents) if clip.audio else None
        decoded_sound = time.monotonic()
        with scratch_folder() as folder:
            files = encode_clip(
                frames,
                shape=clip.shape,
                waveform=waveform,
                folder=Path(folder),
                stem=f"{clip.clip_id}.{attempt}",
                settings=self.place.media,
            )
            probe = probe_mp4(files["mp4"])
            check_probe(probe, clip.shape, clip.audio)
            encoded = time.monotonic()
            uploaded = upload(self.store, files)
        decode_s = decoded_sound - began + frames.seconds
        seconds = {
            "decode": decode_s,
            "encode": encoded - began - decode_s,
            "upload": time.monotonic() - encoded,
        }
        return Finished(attempt=attempt, files=uploaded, probe=probe, seconds=seconds)

    def _waveform(self, clip: Clip, latents: "Latents") -> Any:
        """What is heard: the given sound itself, or what the model made."""
        if clip.audio_in is None:
            return self.audio.decode(latents.audio).numpy()
        from model.sounds import delivered

        rate_hz = clip.shape.sample_rate_hz
        return delivered(load_fitted(clip.audio_in, self.place, to_rate_hz=rate_hz, seconds=clip.duration_s)).numpy()


class _Timed(Iterator[Any]):
    """Counts the seconds that an iterator's consumer waits for it."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source
        self.seconds = 0.0

    def __next__(self) -> Any:
        began = time.monotonic()
        try:
            return next(self._source)
        finally:
            self.seconds += time.monotonic() - began
