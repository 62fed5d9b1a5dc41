# Each target is one line a person would type. `make test` proves the whole thing,
# `make demo` shows it; both install what is missing.

STATICCHECK   = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME     ?= 10s
VERSION      ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# The race detector needs a C compiler; without one the tests run without it.
RACE = $(shell command -v gcc >/dev/null 2>&1 && echo -race)

# Debian keeps the server and nft in sbin, which is not in everybody's PATH.
export PATH := $(PATH):/usr/sbin:/sbin

# Tests make servers by the hundred and throw them away. Processes are killed there, not machines, so nothing hangs on a
# disk but time: where there is plenty of memory, that is where they are. On the disk stay the storm, MySQL's scenarios and the controls.
SCRATCH = $(shell scripts/scratch.sh)

.PHONY: build deps test unit integration integration-all integration-mariadb integration-mysql controls race lint check fuzz demo soak soak-mariadb soak-mysql bench bench-mariadb bench-mysql clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

deps:
	@scripts/deps.sh

test: deps build unit integration controls

# One package at a time: several start servers and measure time.
unit:
	TMPDIR="$(SCRATCH)" go test $(RACE) -p 1 ./...

# Everything on MariaDB but what takes a minute or more by itself, as five nodes do (and a shorter storm); on MySQL the scenarios in which the servers differ.
integration: deps build
	TMPDIR="$(SCRATCH)" HIGHBASE_REQUIRE=1 HIGHBASE_SERVER=mariadb go test -tags integration -count=1 -timeout 20m -run '^Test[^B]' -skip '^TestStorm$$|^TestLag$$|^TestFiveNodes$$|^TestRebuild(LosesItsDonor|OverABrokenLink)$$|^TestRebuild$$/^DDL' ./integration
	HIGHBASE_REQUIRE=1 HIGHBASE_STORM=20s HIGHBASE_SERVER=mariadb go test -tags integration -count=1 -timeout 20m -run '^TestStorm$$' ./integration
	HIGHBASE_REQUIRE=1 HIGHBASE_SERVER=mysql go test -tags integration -count=1 -timeout 20m -run '^Test(Host|Service|SyncSet|SyncSetOutsider|Rebuild)$$' -skip '^TestRebuild$$/^(DDL|purged|a_host)' ./integration

# Every scenario, on each server. About half an hour.
integration-all: integration-mariadb integration-mysql

integration-mariadb integration-mysql: integration-%: deps build
	HIGHBASE_REQUIRE=1 HIGHBASE_SERVER=$* go test -tags integration -count=1 -timeout 40m -run '^Test[^B]' ./integration

# Builds in which one guarantee is broken on purpose: the tests must notice each.
controls: deps build
	HIGHBASE_REQUIRE=1 HIGHBASE_CONTROLS=1 HIGHBASE_PATIENCE=25s go test -tags integration -count=1 -timeout 15m -v -run '^TestControls$$' ./integration
	go test -tags break_epoch -count=1 -run '^TestBrokenEpoch' ./cluster
	go test -tags break_fence -count=1 -run '^TestBrokenWait' ./cluster
	go test -tags break_lease_wait -count=1 -run '^TestBrokenWait' ./cluster

race:
	go test -race -p 1 -count=1 ./...

# Fast: what a commit must pass.
check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	go vet -tags integration ./integration
	go mod tidy -diff
	go run $(STATICCHECK) -tags integration ./...
	go test -run 'TestImports|TestWrongEdges|TestFSM|TestImpurity|TestFiles|TestPackages' .

lint:
	go run $(GOLANGCI_LINT) run --build-tags integration ./...

# Every fuzz target for FUZZTIME, starting from the kept corpora.
fuzz:
	@set -e; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

demo: deps build
	bin/hbctl sandbox demo

# The primary killed fifty times in a row, by its host and by its server, on each server. About twenty minutes.
soak: soak-mariadb soak-mysql

soak-mariadb soak-mysql: soak-%: deps build
	HIGHBASE_REQUIRE=1 HIGHBASE_SERVER=$* HIGHBASE_SOAK=50 HIGHBASE_LAG=30s go test -tags integration -count=1 -timeout 60m -v -run '^(TestSoak|TestLag)$$' ./integration

# Prints numbers, on each server, and judges none. HIGHBASE_BENCH_RUNS, _CASE and _TIMING choose.
bench: bench-mariadb bench-mysql

bench-mariadb bench-mysql: bench-%: deps build
	HIGHBASE_REQUIRE=1 HIGHBASE_BENCH=1 HIGHBASE_SERVER=$* go test -tags integration -count=1 -timeout 90m -run '^TestBench' ./integration

clean:
	rm -rf bin
