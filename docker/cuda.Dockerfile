# syntax=docker/dockerfile:1
# dudi-kit on NVIDIA GPUs. Build in the root of the repository:
#   docker build -f docker/cuda.Dockerfile -t dudi-kit:cuda .
# No CUDA base: torch's wheel from PyPI brings the CUDA libraries that it was built with, and the machine its driver.

# The digest that a tag stood for can't be known here; pin it with --build-arg BASE=python:…@sha256:….
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Triton, which torch.compile uses, compiles small launchers in C. Debian keeps one version of these in a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# The largest layer; it changes with the version of torch only. nvidia-ml-py tells how busy a GPU is.
WORKDIR /opt/dudi-kit
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch nvidia-ml-py

# What the package depends on; it changes with pyproject.toml and constraints.txt.
COPY pyproject.toml README.md LICENSE ./
COPY dudi_kit/__init__.py dudi_kit/__init__.py
RUN pip install --no-cache-dir -c constraints.txt ".[trackers]"

# The package itself, which is small.
COPY dudi_kit dudi_kit
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# There is no nvcc here, which DeepSpeed looks for when it is imported beside a GPU: dudi-kit needs none of the
# operators that it would compile; optimizer states that are offloaded are updated by torch's AdamW instead.
ENV DS_IGNORE_CUDA_DETECTION=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Caches lie on a volume, and whoever runs the container may write them: `docker run --user` knows no name here.
ENV HOME=/cache/home USER=dudi HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache/xdg TRITON_CACHE_DIR=/cache/triton
RUN useradd --uid 1000 --home-dir /cache/home dudi \
    && install -d -m 1777 /cache /cache/home /cache/huggingface /cache/xdg /cache/triton /work /work/outputs
VOLUME /cache
WORKDIR /work
COPY recipes recipes
USER 1000:1000

ENTRYPOINT ["dudi-kit"]
CMD ["--help"]
