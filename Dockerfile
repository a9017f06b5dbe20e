# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package afterimage-server --bin afterimage \
    && cp target/release/afterimage /usr/local/bin/afterimage

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="afterimage" \
      org.opencontainers.image.description="HTTP image server for Diffusion Transformers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Models fetched from the hub are kept here: mount a volume to keep them longer than the container.
# The folder exists in the image so that a new volume takes over its owner.
ENV HF_HOME=/home/afterimage/.cache/huggingface
RUN useradd --uid 10001 --create-home afterimage \
    && install --directory --owner=afterimage --group=afterimage "$HF_HOME"
COPY --from=builder /usr/local/bin/afterimage /usr/local/bin/afterimage
USER 10001
EXPOSE 8080
# The image has no curl: bash opens the connection itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health/live HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && IFS= read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["afterimage", "serve", "--host", "0.0.0.0"]
