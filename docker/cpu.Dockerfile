# syntax=docker/dockerfile:1
# dudi-kit on a CPU: the quickstart, checks and plans, small students. Build in the root of the repository:
#   docker build -f docker/cpu.Dockerfile -t dudi-kit:cpu .

# The digest that a tag stood for can't be known here; pin it with --build-arg BASE=python:…@sha256:….
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The largest layer first; it changes with the version of torch only. The CPU build is a tenth of the CUDA one.
WORKDIR /opt/dudi-kit
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch

# What the package depends on; it changes with pyproject.toml and constraints.txt.
COPY pyproject.toml README.md LICENSE ./
COPY dudi_kit/__init__.py dudi_kit/__init__.py
RUN pip install --no-cache-dir -c constraints.txt ".[trackers]"

# The package itself, which is small.
COPY dudi_kit dudi_kit
RUN pip install --no-cache-dir --no-deps --force-reinstall .

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
