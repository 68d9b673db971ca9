# `make demo` shows the main job, `make test` proves it. Both set up what they need.
CARGO ?= cargo
RUN = $(CARGO) run --quiet --bin pagehand --

.PHONY: demo test check chaos chaos-fixed chaos-points chaos-guards chaos-disk chaos-outage bench setup sqlx clean

demo: setup ## work off tasks of every outcome against the built-in site
	$(CARGO) build --bin pagehand
	$(RUN) demo

test: setup check ## format, lints, and every test on real Postgres and real Chrome
	$(CARGO) test
	$(CHAOS)

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --features failpoints --test chaos -- -D warnings
	scripts/deny
	@if command -v promtool >/dev/null; then cd ops/prometheus && promtool check rules *.rules.yml && promtool test rules tests.yml; \
	else echo "promtool is not installed: alert rules not checked"; fi

# Only this package is built anew for it, with places where it can be killed (src/fault.rs). Without more: three of
# the seeds that ever showed a fault.
CHAOS = $(CARGO) test --quiet --features failpoints --test chaos --

chaos: setup ## workers, Chrome and Postgres die by SEED (a random one without); also SEEDS, TASKS, WORKERS, LIVES
	$(CHAOS) swarm $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(TASKS),--tasks $(TASKS)) \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(LIVES),--lives $(LIVES))

chaos-fixed: setup ## the seeds that ever showed a fault
	$(CHAOS) fixed

chaos-points: setup ## a fault at every place that an attempt passes; ACTION=kill,power,stop,full,broken,gone, ONLY=part of a name
	$(CHAOS) points $(if $(ACTION),--action $(ACTION)) $(if $(ONLY),--only $(ONLY))
	$(CHAOS) points --looking $(if $(ACTION),--action $(ACTION)) $(if $(ONLY),--only $(ONLY))

chaos-guards: setup ## each guard is taken out and has to be missed; ONLY=part of a name
	$(CHAOS) guards $(if $(ONLY),--only $(ONLY))

chaos-disk: setup ## a disk without room for bytes, then for files; mounts small file systems, so as root
	$(CHAOS) disk

chaos-outage: setup ## Postgres is away for SECONDS (300) under load
	$(CHAOS) outage $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TASKS),--tasks $(TASKS))

bench: setup ## speed, beside Playwright on the same browser; what the way out costs
	$(CARGO) bench
	$(CARGO) bench --features failpoints --bench canonical -- --guards

forms: setup ## how well pages are understood: CORPUS=DIR (benches/forms/main.rs says its format); also HIDE_NAMES=1, FIT=1, VERBOSE=1
	$(CARGO) bench --profile dev --bench forms -- $(CORPUS) $(if $(HIDE_NAMES),--hide-names) $(if $(FIT),--fit) $(if $(VERBOSE),--verbose)

setup: ## install missing system packages where that is allowed, else say how
	@scripts/setup

sqlx: setup ## write the data of the checked queries anew, after a change of SQL
	scripts/sqlx-prepare

clean:
	$(CARGO) clean
