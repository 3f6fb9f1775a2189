# Two stages: a compiler builds the wheel, the image that runs has none.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG BUILD_IMAGE=python:3.11-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN python3 -m pip wheel --no-cache-dir --wheel-dir /wheels .

FROM ${BASE_IMAGE}
COPY --from=build /wheels /wheels
# The version is the one that the build stage made.
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir --no-index --find-links=/wheels mariana-serve \
    && rm -rf /wheels \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mariana \
    && install --directory --owner=mariana /store
USER 10001
ENV MARIANA_HOST=0.0.0.0 \
    MARIANA_PORT=8080 \
    MARIANA_STORE=/store
VOLUME /store
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=1)"]
ENTRYPOINT ["mariana"]
CMD ["serve"]
