# The developers' interface. `just` alone lists the recipes; CI runs the same commands through .ci/run.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# Format the Rust code
fmt:
    cargo fmt --all

# Check formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Compare imports, circles, sizes and the picture of the rooms with tests/structure/rules.toml
structure:
    tests/structure/check
    python3 -m unittest discover --start-directory tests/structure

# Run all tests, or those whose name contains a filter
test *filter:
    cargo test --workspace --locked {{ filter }}

# End-to-end tests only: the server on a free port and a real HTTP client
e2e:
    cargo test --package afterimage-server --test '*' --locked

# Ten minutes of saturation with clients that never read, leave or compete, and an unread log; prints a report
soak seconds="600":
    AFTERIMAGE_SOAK_SECONDS={{ seconds }} cargo test --package afterimage-server --test e2e --locked \
        soak_for_as_long_as_asked -- --ignored --nocapture

# How soon a client that leaves frees its rows; prints a table
cancellation:
    cargo test --package afterimage-server --test e2e --locked seconds_from_a_hang_up -- --ignored --nocapture

# Requests per second and latency of the HTTP layer, idle and while it generates; prints a table
http-load:
    cargo test --package afterimage-server --test e2e --locked http_load -- --ignored --nocapture

# Memory and seconds with and without `--offload text-encoders`; prints a table
text-encoder-memory:
    cargo test --package afterimage-server --test e2e --locked text_encoder_memory -- --ignored --nocapture

# Other people's clients against the built server; arguments go to pytest
clients *arguments:
    tests/clients/run {{ arguments }}

# Run the benchmarks
bench *arguments:
    cargo bench --workspace --locked {{ arguments }}

# The server for NVIDIA GPUs and the bundle of benches/gpu.sh, into target/cuda (needs no GPU; docs/gpu.md)
cuda-build:
    deploy/cuda/build

# Build the API documentation; warnings are errors
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Every fuzz target for so many seconds; prints a table (needs cargo-fuzz and a C++ compiler)
fuzz seconds="60" *targets:
    fuzz/run {{ seconds }} {{ targets }}

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# All that CI runs
ci:
    .ci/run
