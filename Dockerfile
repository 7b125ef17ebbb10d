# The image that every pod of cluster=kuberay runs: docs/kubernetes.md says how to build and pin it.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS wheel
WORKDIR /build
RUN pip install --no-cache-dir build
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY jobs jobs
COPY model model
COPY pipeline pipeline
RUN python -m build --wheel --outdir /wheel

FROM ${BASE}
# KubeRay's probes call wget; Ray looks at processes with ps; kernels that torch compiles on a node need a C compiler.
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc libc6-dev procps wget \
    && rm -rf /var/lib/apt/lists/*
# Into the Python of the image itself: KubeRay starts Ray from a login shell, which knows no other PATH.
COPY constraints.txt /srv/constraints.txt
COPY --from=wheel /wheel /srv/wheel
RUN pip install --no-cache-dir --constraint /srv/constraints.txt "happyhorse[released] @ file://$(ls /srv/wheel/*.whl)" \
    && rm -r /srv/wheel
RUN useradd --uid 1000 --home-dir /srv/happyhorse --create-home --shell /bin/bash happyhorse
USER 1000
WORKDIR /srv/happyhorse
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
CMD ["happyhorse", "--help"]
