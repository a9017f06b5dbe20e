# syntax=docker/dockerfile:1

# Base images by the digest of their multi-architecture index. To move on: docker buildx imagetools inspect IMAGE:TAG
FROM rust:1.95-slim-bookworm@sha256:b8ecdb97c5b9c1ae058249f72710dbe33d4da19f7b8d911bd3c72e5f048af251 AS builder
# Cargo features, with commas between them.
ARG FEATURES=otlp
# What `afterimage --version` tells: git stays outside.
ARG COMMIT=unknown
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    BUILD_COMMIT="$COMMIT" cargo build --release --locked --package afterimage-server --bin afterimage \
        --features "$FEATURES" \
    && cp target/release/afterimage /usr/local/bin/afterimage

# The program alone: docker build --target binary --output DIR .
FROM scratch AS binary
COPY --from=builder /usr/local/bin/afterimage /afterimage

FROM debian:bookworm-slim@sha256:abd67ffcfa541b485a3dff59865ab629aa048a6c613e639d36e7456b0b229241
ARG COMMIT=unknown
ARG VERSION=0.1.0
ARG SOURCE=""
ARG CREATED=""
LABEL org.opencontainers.image.title="afterimage" \
      org.opencontainers.image.description="HTTP image server for diffusion transformers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim" \
      org.opencontainers.image.base.digest="sha256:abd67ffcfa541b485a3dff59865ab629aa048a6c613e639d36e7456b0b229241"
# Settings are variables, not flags, so that everything said to `docker run` wins over them.
# Models fetched from the hub are kept in HF_HOME: mount a volume to keep them longer than the container.
# The folder exists in the image so that a new volume takes over its owner.
ENV AFTERIMAGE_HOST=0.0.0.0 \
    HF_HOME=/home/afterimage/.cache/huggingface
RUN useradd --uid 10001 --create-home afterimage \
    && install --directory --owner=afterimage --group=afterimage "$HF_HOME"
COPY --from=builder /usr/local/bin/afterimage /usr/local/bin/afterimage
USER 10001
WORKDIR /home/afterimage
EXPOSE 8080
# Asks the server that runs in the container, on whatever port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["afterimage", "health", "live"]
ENTRYPOINT ["afterimage"]
CMD ["serve"]
