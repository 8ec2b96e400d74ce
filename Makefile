# The two commands for newcomers are `make demo` and `make test`; each installs what is missing
# (scripts/setup.sh). `make help` lists the rest.

export PATH := $(HOME)/.cargo/bin:$(CURDIR)/target/tools:$(PATH)
# Which other PostgreSQL versions `make test-all` fetches and runs the tests on.
MAJORS ?= 13 14 16 17 18
# How long `make soak` goes on, in minutes.
MINUTES ?= 60
# How long `make fuzz` goes on with each of its targets.
SECONDS_EACH ?= 60

.PHONY: help demo release test test-all soak fuzz bench bench-check bench-failover lint docs clean

help:
	@echo "make demo       a throw-away primary, two standbys and pgsteer in front; ARGS=\"lag 30s\""
	@echo "make release    target/tuned/pgsteer: a release build that was shown statements first"
	@echo "make test       format, lints, and all tests on this machine's PostgreSQL (what CI runs)"
	@echo "make test-all   test, then on other PostgreSQL versions ($(MAJORS)), other drivers, and"
	@echo "                PostgreSQL's own suites through pgsteer"
	@echo "make soak       the tests on real servers, over and over with new seeds; MINUTES=60"
	@echo "make fuzz       what the readers of strangers' bytes do with any; SECONDS_EACH=60, nightly Rust"
	@echo "make bench      what a proxy costs: the same work direct, through PgBouncer, HAProxy and"
	@echo "                pgsteer; ARGS=\"logins bulk\" for some of the sections (--help lists them)"
	@echo "make bench-check  instructions a statement, and of single steps, against benches/baseline.json"
	@echo "make bench-failover  how long a failover takes, as a distribution"
	@echo "make lint       format and lints only"
	@echo "make docs       the configuration's reference, and the documentation of the code"
	@echo "make clean      removes what was built and fetched"

demo:
	@scripts/setup.sh demo
	cargo build --locked
	@"$${CARGO_TARGET_DIR:-target}/debug/pgsteer" demo $(ARGS)

release: target/tuned/pgsteer

target/tuned/pgsteer: Cargo.toml Cargo.lock build.rs scripts/release.sh $(shell find src -type f)
	@scripts/setup.sh release
	@scripts/release.sh

# Each test's servers are files by the thousand, and gone with it.
test test-all soak: export TMPDIR := $(shell scripts/scratch.sh)

test:
	@scripts/setup.sh test
	@scripts/run-tests.sh

test-all: test
	@scripts/setup.sh all
	@scripts/test-versions.sh $(MAJORS)
	@scripts/test-drivers.sh
	@scripts/test-suites.sh
	PGSTEER_TRIES=2000 cargo test --locked --test e2e -- auth::guessing::
	HOSTILE=20000 cargo test --locked --test e2e -- bad_input::torture
	PGSTEER_LEAKS=180 cargo test --locked --test e2e -- leaks::
	PGSTEER_ROW=1000000000 cargo test --locked --test e2e -- flow::huge
	PGSTEER_STATEMENTS=1000000 cargo test --locked --test e2e -- memory::
	PGSTEER_CONVERSATIONS=1000 cargo test --locked --test e2e -- protocol::orders::
	PGSTEER_KILLS=10 PGSTEER_SWITCHOVERS=50 cargo test --locked --test e2e -- failover::

soak:
	@scripts/setup.sh test
	@scripts/soak.sh $(MINUTES)

fuzz:
	@scripts/setup.sh build
	@scripts/fuzz.sh $(SECONDS_EACH)

bench: $(if $(PGSTEER_BENCH_BINARY),,release)
	@scripts/setup.sh bench
	PGSTEER_BENCH_BINARY=$(or $(PGSTEER_BENCH_BINARY),$(CURDIR)/target/tuned/pgsteer) \
		cargo bench --locked --bench proxies -- $(ARGS)

bench-check:
	@scripts/setup.sh bench
	@# valgrind hides the page in which rustix looks for the clock, so it is to ask the C library
	cargo bench --locked --features rustix/use-libc-auxv --bench instructions -- $(ARGS)

bench-failover:
	@scripts/setup.sh demo
	cargo bench --locked --bench failover -- $(ARGS)

lint:
	@scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --locked --all-targets --all-features -- -D warnings

docs:
	@scripts/setup.sh build
	cargo run --locked --quiet -- config reference > target/pgsteer.toml
	mv target/pgsteer.toml config/pgsteer.toml
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

clean:
	cargo clean
