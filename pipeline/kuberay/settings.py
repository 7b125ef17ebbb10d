"""What is asked of Kubernetes, as plain frozen values with a default for each. A bad value is a ConfigError."""

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"[1-9]\d*([KMGT]i?)?")
LABEL = re.compile(r"(?:[a-z0-9.-]+/)?[A-Za-z0-9][\w.-]*=[\w.-]*")
IMAGE = re.compile(r"[\w][\w.:/-]*(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings:
    """Fields have the defaults of `conf/kubernetes/default.yaml`, which explains them."""

    namespace: str = "default"
    image: str | None = None
    pull_secret: str | None = None
    secret: str | None = "happyhorse-storage"
    service_account: str | None = None
    max_gpu_workers: int = 4
    gpus_per_worker: int | None = None
    gpu_worker_cpus: int = 8
    gpu_worker_memory: str = "64Gi"
    gpu_nodes: tuple[str, ...] = ()
    max_cpu_workers: int = 2
    cpu_worker_cpus: int = 8
    cpu_worker_memory: str = "48Gi"
    head_cpus: int = 2
    head_memory: str = "8Gi"
    new_clusters: int = 2
    start_timeout_s: int = 1800
    deadline_s: int | None = None
    keep_s: int = 300
    idle_s: int = 300
    auth: Literal["token", "disabled"] = "token"

    def __post_init__(self) -> None:
        for name in ("namespace", "pull_secret", "secret", "service_account"):
            self._matches(name, NAME, "small letters, digits and hyphens")
        for name in ("gpu_worker_memory", "cpu_worker_memory", "head_memory"):
            self._matches(name, QUANTITY, "a quantity such as 64Gi")
        self._matches("image", IMAGE, "an image such as registry/happyhorse:0.1.0 or registry/happyhorse@sha256:...")
        for label in self.gpu_nodes:
            if not LABEL.fullmatch(label):
                raise ConfigError(f"kubernetes.gpu_nodes: got {label!r}, expected a label such as zone=a")
        counts = ("max_gpu_workers", "gpus_per_worker", "gpu_worker_cpus", "max_cpu_workers", "cpu_worker_cpus")
        for name in (*counts, "head_cpus", "start_timeout_s", "deadline_s", "idle_s"):
            self._at_least(name, 1)
        for name in ("new_clusters", "keep_s"):
            self._at_least(name, 0)

    def _matches(self, name: str, kind: re.Pattern[str], expected: str) -> None:
        value = getattr(self, name)
        if value is not None and not kind.fullmatch(value):
            raise ConfigError(f"kubernetes.{name}: got {value!r}, expected {expected}")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ConfigError(f"kubernetes.{name} is {value}, expected at least {least}")
