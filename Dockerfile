# docs/containers.md says how to run it.
FROM python:3.11.14-slim-bookworm AS build

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libmariadb-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock .
# mysqlclient is built here; the compiler stays behind.
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11.14-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends fonts-dejavu-core libmariadb3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app \
    && install -d -o app -g app -m 700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATIC_ROOT=/srv/project/static \
    MEDIA_ROOT=/data/media
WORKDIR /app
COPY . .
# It needs no server; with DEBUG=1 no key either.
RUN DEBUG=1 python manage.py collectstatic --no-input --verbosity 0 \
    && python -m compileall -q .
USER 10001:10001
EXPOSE 8000
# Of the API; other processes end by themselves if they hang, and have none.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live')"]
CMD ["granian", "--interface", "asgi", "--host", "0.0.0.0", "--port", "8000", \
     "--http1-header-read-timeout", "10000", "--workers-kill-timeout", "8", \
     "project.asgi:application"]
