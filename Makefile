# Each target installs what it needs (apt-get as root; otherwise it says what to install).
# cargo keeps its output in CARGO_TARGET_DIR (./target when unset).

.PHONY: run chat build release profile compat test check fuzz bench gpu tools clean

run: tools            ## serve the demo model on http://127.0.0.1:8080 (ARGS="--model PATH ...")
	cargo run --release --locked -p gateway -- serve $(ARGS)

chat: tools           ## talk to it in this terminal
	cargo run --release --locked -p gateway -- chat $(ARGS)

build: tools          ## release binary
	cargo build --release --locked -p gateway

release: tools        ## the binary to ship, target/dist/hearth: GPU kernels built in, it needs only the driver
	tests/tools.sh nvrtc
	deploy/build.sh

profile: tools        ## what the one above is compiled by, made anew: half an hour (needs llvm-profdata)
	deploy/build.sh train

compat: tools         ## the separate node for other architectures (docs/compat.md), minutes to build
	cargo build --release --locked --manifest-path engine/compat/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target)/compat

test: tools           ## every test: units, properties, simulation, the real binary, real clients
	tests/tools.sh python
	tests/tools.sh node
	tests/tools.sh litellm
	tests/tools.sh services
	tests/tools.sh nvrtc
	cargo test --workspace --locked --no-fail-fast

check: tools          ## format, lints, documentation, dependency audit
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target)/fuzz
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked
	tests/tools.sh deny
	cargo deny check bans licenses sources

fuzz: tools           ## one parser under libFuzzer for some seconds (ARGS="chat 60"; others: fuzz/src/bin)
	fuzz/run.sh $(ARGS)

bench: tools          ## all benches, appended to benches/results (ARGS="engine --peer ...")
	cargo run --release --locked -p benches -- $(or $(ARGS),all)

gpu: tools            ## what tests/gpu/run.sh needs on a machine with a GPU, packed into target/gpu
	tests/tools.sh nvrtc
	tests/gpu/pack.sh

tools:
	@tests/tools.sh base

clean:
	cargo clean
