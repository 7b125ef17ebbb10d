"""What a Transformer's output means: the velocity itself, or a clean sample to be completed from the noisy one."""

from collections.abc import Callable

from torch import Tensor

from model.transformer import Transformer

Velocity = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]  # (video, audio, text, sigma)
DETAIL_SPREAD = 0.5  # typical size of a latent channel, which decides how much of the noisy sample to trust


def clean_sample(output: Tensor, noisy: Tensor, sigma: Tensor | float) -> Tensor:
    """A share of the noisy sample, that of the best linear guess, plus the network's part (Karras et al. 2022)."""
    trust = DETAIL_SPREAD**2 * (1 - sigma)
    total = trust * (1 - sigma) + sigma**2
    return noisy * (trust / total) + output * (sigma / total**0.5)


def velocity_of(transformer: Transformer) -> Velocity:
    """What samplers call. The noise level reaches a network's velocity only where its config predicts `clean`."""

    def velocity(video: Tensor, audio: Tensor, text: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        video_out, audio_out = transformer(video, audio, text)
        if transformer.config.prediction == "velocity":
            return video_out, audio_out
        clean_video, clean_audio = clean_sample(video_out, video, sigma), clean_sample(audio_out, audio, sigma)
        return (video - clean_video) / sigma, (audio - clean_audio) / sigma

    return velocity
