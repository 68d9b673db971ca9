# `make demo` shows the main job, `make test` proves it. Both set up what they need.
CARGO ?= cargo
RUN = $(CARGO) run --quiet --bin pagehand --

.PHONY: demo test check bench setup sqlx clean

demo: setup ## work off tasks of every outcome against the built-in site
	$(CARGO) build --bin pagehand
	$(RUN) demo

test: setup check ## format, lints, and every test on real Postgres and real Chrome
	$(CARGO) test

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	scripts/deny
	@if command -v promtool >/dev/null; then cd ops/prometheus && promtool check rules *.rules.yml && promtool test rules tests.yml; \
	else echo "promtool is not installed: alert rules not checked"; fi

bench: setup ## speed, beside Playwright on the same browser
	$(CARGO) bench

setup: ## install missing system packages where that is allowed, else say how
	@scripts/setup

sqlx: setup ## write the data of the checked queries anew, after a change of SQL
	scripts/sqlx-prepare

clean:
	$(CARGO) clean
