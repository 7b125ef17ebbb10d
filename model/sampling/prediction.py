"""What a Transformer's output means: the velocity itself, or a clean sample to be completed from the noisy one."""

from collections.abc import Callable

from torch import Tensor

from model.transformer import Transformer

Velocities = tuple[Tensor, Tensor]  # of video and audio
Velocity = Callable[[Tensor, Tensor, list[Tensor], float], list[Velocities]]  # (video, audio, texts, sigma); one a text
DETAIL_SPREAD = 0.25  # what a network leaves open of a latent, about: how much of the noisy sample to trust


def clean_sample(output: Tensor, noisy: Tensor, sigma: Tensor | float) -> Tensor:
    """A share of the noisy sample, that of the best linear guess, plus the network's part (Karras et al. 2022)."""
    trust = DETAIL_SPREAD**2 * (1 - sigma)
    total = trust * (1 - sigma) + sigma**2
    return noisy * (trust / total) + output * (sigma / total**0.5)


def velocity_of(transformer: Transformer, *, one_forward: bool = False) -> Velocity:
    """What samplers call. The noise level reaches a network's velocity only where its config predicts `clean`.

    `one_forward` takes all texts of a step through the weights at once: a guided step's two.
    """

    def velocity(video: Tensor, audio: Tensor, texts: list[Tensor], sigma: float) -> list[Velocities]:
        if one_forward:
            outputs = transformer.forward_each(video, audio, texts)
        else:
            outputs = [transformer(video, audio, text) for text in texts]
        if transformer.config.prediction == "velocity":
            return outputs
        return [
            (
                (video - clean_sample(video_out, video, sigma)) / sigma,
                (audio - clean_sample(audio_out, audio, sigma)) / sigma,
            )
            for video_out, audio_out in outputs
        ]

    return velocity
