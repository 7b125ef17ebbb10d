"""The sound that a clip is rendered to: what the network is shown of it at each step, in place of a sample of its own.

L audio latents.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GivenSound:
    """`clean` [1, L, Ca]. Without `noise` it is shown as it is, at every step, as released.

    With it, [1, L, Ca], it is shown at the video's own noise level: for networks that know one level for both (the
    foal's, which took a clean sound for the end of the way and left the video as it was).
    """

    clean: Tensor
    noise: Tensor | None = None

    def at(self, sigma: float) -> Tensor:
        return self.clean if self.noise is None else (1 - sigma) * self.clean + sigma * self.noise
