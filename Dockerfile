# Two stages: the first builds a virtual environment from hashed requirements and the wheel, its hot path compiled to C,
# and assembles the root folder of the image (deploy/image/root.py); the second is that folder and nothing else. It has
# no shell, no package manager, no pip and no compiler. `make image` passes the arguments.
# Every file gets the time SOURCE_DATE_EPOCH.
# For a release, and behind a mirror, name the base by its digest:
#   --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /src
# Whichever compiler and strip the base's Debian has.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements/run.txt requirements/build.txt requirements/compile.txt requirements/
# /opt/gatepass gets no pip: the build's own pip fills it from outside.
RUN python -m venv /opt/build \
 && python -m venv --without-pip /opt/gatepass \
 && /opt/build/bin/pip --python /opt/gatepass/bin/python install --no-compile --require-hashes -r requirements/run.txt \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.txt -r requirements/compile.txt
# The time of every file of the image, in seconds since 1970.
ARG SOURCE_DATE_EPOCH=0
COPY pyproject.toml setup.py README.md LICENSE ./
COPY gateway gateway
RUN export SOURCE_DATE_EPOCH \
 && GATEPASS_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .
COPY deploy/image/ image/
# Bytecode is compiled here and never checked against the source again: the file system is read-only at run time.
RUN export SOURCE_DATE_EPOCH \
 && PYTHONDONTWRITEBYTECODE=1 /opt/build/bin/pip --python /opt/gatepass/bin/python install --no-compile --no-deps /wheel/*.whl \
 && PYTHONPYCACHEPREFIX=/opt/gatepass/pycache /opt/gatepass/bin/python image/compile.py \
 && python image/root.py /root-of-image /opt/gatepass \
 && PYTHONDONTWRITEBYTECODE=1 chroot /root-of-image /opt/gatepass/bin/gatepass --version

FROM scratch
ARG PYTHON_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
# Where the sources are published.
ARG SOURCE=
LABEL org.opencontainers.image.title="gatepass" \
      org.opencontainers.image.description="A reverse proxy that puts a fresh vendor token on every request" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.documentation="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY --from=build /root-of-image /
ENV PATH=/opt/gatepass/bin:/usr/local/bin \
    LANG=C.UTF-8 \
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
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --start-interval=1s --retries=3 CMD ["gatepass", "health"]
ENTRYPOINT ["gatepass"]
CMD ["serve"]
