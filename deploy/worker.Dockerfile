# A worker. Built as it is, torch brings its own CUDA libraries, and the host needs only NVIDIA's
# driver and container toolkit:
#   docker build -f deploy/worker.Dockerfile -t customedit-worker:0.1.0 .
# For machines without a GPU, a tenth of the size:
#   docker build -f deploy/worker.Dockerfile -t customedit-worker:0.1.0-cpu \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://pypi.org/simple
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/customedit && python -m venv /opt/build
COPY requirements/worker.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/customedit/bin/pip install --no-deps --require-hashes -r requirements/worker.txt
# Torch comes alone and without hashes, since its builds differ. What it needs is there by now, but
# for a CUDA build's own libraries, whose exact versions it names.
COPY requirements/torch.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/customedit/bin/pip install --index-url "${TORCH_INDEX}" -r requirements/torch.txt
COPY requirements/build.txt requirements/
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY customedit customedit
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir api \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/customedit/bin/pip install --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS worker
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin customedit \
    && install -d -o customedit -g customedit /models /scratch
COPY --from=build /opt/customedit /opt/customedit
# Bases given by a hub name are fetched once, into the volume /models; files of jobs are in /scratch.
ENV PATH=/opt/customedit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CUSTOMEDIT_METRICS_HOST=0.0.0.0 \
    CUSTOMEDIT_METRICS_PORT=9100 \
    CUSTOMEDIT_SCRATCH_DIR=/scratch
USER 10001:10001
WORKDIR /tmp
VOLUME /models /scratch
EXPOSE 9100
# Live from the start, ready when the base is loaded: a first start with a large base takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9100/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "customedit.programs", "worker"]
