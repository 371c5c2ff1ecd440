# The front end: no torch, no model, no compiler. Build it from the repository root:
#   docker build -f deploy/api.Dockerfile -t customedit-api:0.1.0 .
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/customedit && python -m venv /opt/build
# The packages first: they change seldom, so this layer outlives changes of the code.
COPY requirements/api.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/customedit/bin/pip install --no-deps --require-hashes -r requirements/api.txt
COPY requirements/build.txt requirements/
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY customedit customedit
COPY api api
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir worker \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/customedit/bin/pip install --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS api
# /keys: where Compose mounts a volume that setup.sh writes to. It takes the folder's owner.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin customedit \
    && install -d -m 700 -o customedit -g customedit /keys
COPY --from=build /opt/customedit /opt/customedit
ENV PATH=/opt/customedit/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CUSTOMEDIT_API_HOST=0.0.0.0 \
    CUSTOMEDIT_API_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "customedit.programs", "api"]
