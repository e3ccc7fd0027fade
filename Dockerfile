# Two stages: the first builds a virtual environment from hashed requirements and the wheel, its hot path compiled to C;
# the second only runs it, and has neither compiler nor pip.
# For a release, and behind a mirror, name the base by its digest:
#   --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:… --build-arg REVISION=$(git rev-parse HEAD)
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Whichever compiler the base's Debian has.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements/run.txt requirements/build.txt requirements/compile.txt requirements/
# /opt/gatepass gets no pip: the build's own pip fills it from outside.
RUN python -m venv /opt/build \
 && python -m venv --without-pip /opt/gatepass \
 && /opt/build/bin/pip --python /opt/gatepass/bin/python install --no-compile --require-hashes -r requirements/run.txt \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.txt -r requirements/compile.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY gateway gateway
COPY deploy/image/ image/
# Bytecode is compiled here and never checked against the source again: the file system is read-only at run time.
RUN GATEPASS_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && PYTHONDONTWRITEBYTECODE=1 /opt/build/bin/pip --python /opt/gatepass/bin/python install --no-compile --no-deps /wheel/*.whl \
 && python image/strip.py /opt/gatepass/lib \
 && PYTHONPYCACHEPREFIX=/opt/gatepass/pycache /opt/gatepass/bin/python image/compile.py

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gatepass" \
      org.opencontainers.image.description="A reverse proxy that puts a fresh vendor token on every request" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY --from=build /opt/gatepass /opt/gatepass
ENV PATH=/opt/gatepass/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/gatepass/pycache \
    GATEPASS_CONFIG=/etc/gatepass/config.yaml \
    GATEPASS_LISTEN=0.0.0.0:8080 \
    GATEPASS_ADMIN=0.0.0.0:9090
# A number, so that an orchestrator can see that it is not root. Nothing is written: --read-only works.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Asks the admin port of this container; GATEPASS_HEALTH_URL names it when the config puts it elsewhere.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["gatepass", "health"]
ENTRYPOINT ["gatepass"]
CMD ["serve"]
