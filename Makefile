# Everything here runs on Debian, as root: make demo and make test install what
# is missing by themselves (scripts/setup).
export PATH := $(CURDIR)/.tools/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin:$(PATH)
export GOTOOLCHAIN := local

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
STATICCHECK := go tool -modfile=scripts/tools.mod staticcheck
FUZZTIME ?= 30s

.PHONY: all build install demo test lint unit matrix-gateways fuzz storm cycles bench picture clean setup setup-test

all: build

setup:
	@scripts/setup

setup-test:
	@scripts/setup test

# One static binary, without cgo.
build: setup
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/nftnet .

install: build
	install -D -m 755 bin/nftnet $(DESTDIR)/usr/local/bin/nftnet
	install -D -m 644 scripts/nftnet.service $(DESTDIR)/etc/systemd/system/nftnet.service
	install -D -m 644 README.md $(DESTDIR)/usr/local/share/doc/nftnet/README.md

# A Docker engine in a throw-away sandbox, with nftnet as its network driver.
demo: build
	go run ./scripts/demo bin/nftnet

# Beside what the build needs, the tests want firewalld, Chromium, Compose and
# the engines of other Debian releases.
test: setup-test lint unit

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(STATICCHECK) ./...

# Tests make network namespaces and engines of their own: no more packages at a
# time than there are cores, or they starve each other.
unit:
	go test -race -count=1 -timeout 40m ./...

# Every permutation of two networks, engines and crashes (A65); make test tries
# some.
matrix-gateways: setup-test
	NFTNET_GATEWAYS=all go test -count=1 -timeout 2h -run '^TestA65Gateways$$' ./scripts/e2e

# Each fuzz target in turn, for FUZZTIME.
fuzz:
	scripts/fuzz $(FUZZTIME)

# The driver killed KILLS times while it works; the ordinary tests kill it 40 times.
KILLS ?= 300
SEED ?= 1
storm: setup-test
	go test -race -count=1 -timeout 60m -run '^TestA74Storm$$' -v ./scripts/e2e -args -kills $(KILLS) -seed $(SEED)

# Networks and containers made and removed CYCLES times; the ordinary tests do 50.
CYCLES ?= 1000
cycles: setup-test
	go test -race -count=1 -timeout 90m -run '^TestCycles$$' -v ./scripts/e2e -args -cycles $(CYCLES)

bench: setup-test
	go test -run '^$$' -bench . -benchmem ./...

# The pictures of the README, of a page over a ruleset in the kernel.
picture: setup-test
	go test -count=1 -run '^TestPicture$$' ./inspect/view -args -pictures $(CURDIR)/docs

clean:
	rm -rf bin
