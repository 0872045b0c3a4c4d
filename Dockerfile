# The service as an image: Penstock in a virtual environment on a plain Python image.
# How to use it: docs/container.md. Its contents depend on the locks and the base image alone.

# Pin the base for a release: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
# Any image with Python 3.11 or newer, its venv module and glibc will do.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm


FROM ${PYTHON_IMAGE} AS build

# The time that every file of the virtual environment gets.
ARG SOURCE_DATE_EPOCH=1580601600

# What is in hash order in compiled files is then in the same order each time.
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONHASHSEED=0

WORKDIR /src

# pip works from an environment of its own, so that the one we ship has none.
RUN python3 -m venv /pip \
 && python3 -m venv --without-pip /opt/penstock

# What the project needs, exactly as locked; no sdist, so no compiler. Before the sources: a
# change of ours does not fetch it again.
COPY requirements/build.lock requirements/runtime.lock requirements/
RUN /pip/bin/pip install --require-hashes --only-binary :all: -r requirements/build.lock \
 && /pip/bin/pip --python /opt/penstock/bin/python install --no-compile \
      --require-hashes --only-binary :all: -r requirements/runtime.lock

COPY pyproject.toml README.md LICENSE ./
COPY app app

# Byte-compiled here, because nobody can write there later; unchecked, because nothing will
# change: the compiled files hold no times.
RUN /pip/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && /pip/bin/pip --python /opt/penstock/bin/python install --no-compile --no-index --no-deps \
      dist/*.whl \
 && /opt/penstock/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/penstock/lib \
 && find /opt/penstock -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +


FROM ${PYTHON_IMAGE}

# Python images come without compiled files of the standard library: on a read-only root, every
# `penstock health` would compile its imports again. pip goes: what a handler needs comes from
# a build stage (docs/container.md).
#
# /app and /handlers belong to root, so that the service cannot change its own code.
RUN echo 'penstock:x:10001:' >> /etc/group \
 && echo 'penstock:x:10001:10001:penstock:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && install -d -m 0755 /app /handlers \
 && install -d -m 0755 -o 10001 -g 10001 /var/lib/penstock /run/penstock \
 && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
 && PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash \
      -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|site-packages|dist-packages)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

COPY --from=build /opt/penstock /opt/penstock

# /run/penstock is where the control directory is made (mode 0700), not that directory itself:
# a mount may belong to root or be writable by all, and neither would be trusted.
# PENSTOCK_HTTP_HOST and others are left to their defaults: set here, they would outrank the
# application's own code.
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/handlers \
    PENSTOCK_STATE_DIR=/var/lib/penstock \
    PENSTOCK_RUNTIME_DIR=/run/penstock/control

WORKDIR /app
USER 10001:10001

# Writable with --read-only, too; podman would otherwise lay an empty /run over the second.
VOLUME ["/var/lib/penstock", "/run/penstock"]

EXPOSE 8080

# Liveness: a broker that is away, or a drain, is no reason to replace the container.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["penstock", "health"]

# TERM is a stop (exit 0). It is the default, and still has to be said: only where a stop signal is
# set does Docker keep the restart policy after a `docker kill` with another one, USR2 for example.
# USR2 here would turn every `docker stop` into a restart (exit 4).
STOPSIGNAL SIGTERM

# Exec form: no shell between PID 1 and the service, so signals and exit codes are its own.
ENTRYPOINT ["penstock"]
CMD ["run", "penstock.log_records:app"]

# Last, because they change with every build.
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="Kafka consumers that can be restarted on purpose: drain, commit, exit 4" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
