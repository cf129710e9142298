# cove: what scripts may rely on is documented in CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := build

export CGO_ENABLED := 0
export GOFLAGS := -trimpath

# Tools of a pinned version, kept out of the tree's way.
TOOLS := $(CURDIR)/.cache/tools
STATICCHECK := $(TOOLS)/staticcheck@v0.8.2
GOFUMPT := $(TOOLS)/gofumpt@v0.12.0
CRANE := $(TOOLS)/crane@v0.22.1
HELM := $(TOOLS)/helm@v3.22.0

PACKAGES_TEST := dnsmasq-base unbound bind9 squid nftables postgresql skopeo docker.io containerd podman buildah bind9-dnsutils wireguard-tools wireguard-go iproute2 busybox-static curl jq procps openssl ca-certificates azure-cli
PACKAGES_WALK := skopeo bind9-dnsutils wireguard-tools iproute2 busybox-static curl openssl

# Every test of both modules; bin/rows reads how they went and fails for them.
TESTS = export COVE=$(CURDIR)/bin/cove CRANE=$(CRANE) HELM=$(HELM); { go test -json -p 2 -timeout 30m $(1) ./... || :; cd sdktest && go test -json -timeout 10m ./... || :; }

.PHONY: build run test test-unprivileged race lint soak bench conformance canipull clean
.PHONY: bin/cove bin/rows

build: bin/cove

bin/cove:
	@go build -ldflags '-s -w' -o $@ ./cmd/cove

bin/rows:
	@go build -o $@ ./cmd/rows

# The main job in front of you, with real clients; ONCE=1 ends after it.
run: bin/cove $(CRANE)
	@if [ "$$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then make/need.sh $(PACKAGES_WALK); fi
	@COVE=$(CURDIR)/bin/cove CRANE=$(CRANE) ONCE=$(ONCE) scenarios/main-job.sh

test: bin/cove bin/rows $(CRANE) $(HELM)
	@if [ "$$(id -u)" != 0 ]; then echo "make test needs root for network namespaces and container engines; make test-unprivileged runs the rest" >&2; exit 2; fi
	@make/need.sh $(PACKAGES_TEST)
	@$(call TESTS) | bin/rows -out docs/rows.md

test-unprivileged: bin/cove bin/rows $(CRANE)
	@make/need.sh postgresql
	@$(call TESTS,-skip '^TestRoot') | bin/rows

race:
	@CGO_ENABLED=1 go test -race -p 2 -timeout 60m -skip '^TestRoot' ./...

# People run the commands on other systems than the server's too.
lint: $(STATICCHECK) $(GOFUMPT)
	@GOOS=darwin go build -o /dev/null ./cmd/cove
	@go vet -tags soak ./...
	@$(STATICCHECK) -tags soak ./...
	@cd sdktest && go vet ./... && $(STATICCHECK) ./...
	@out=$$($(GOFUMPT) -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted by gofumpt:"; echo "$$out"; exit 1; fi

# What takes longer than 30 s a test. Seeds are printed; results go to docs/soak.md.
soak: bin/cove bin/rows $(CRANE)
	@if [ "$$(id -u)" = 0 ]; then make/need.sh $(PACKAGES_TEST); fi
	@COVE=$(CURDIR)/bin/cove CRANE=$(CRANE) go test -tags soak -json -p 1 -timeout 120m -run '^TestSoak' ./soak ./link/wireguard | bin/rows

bench: bin/cove
	@if [ "$$(id -u)" = 0 ]; then make/need.sh wrk bc curl procps; fi
	@COVE=$(CURDIR)/bin/cove bench/run.sh

# SUITE is a checkout of the OCI distribution-spec repository.
conformance: bin/cove
	@if [ -z "$(SUITE)" ]; then echo "usage: make conformance SUITE=DIR, a checkout of the OCI distribution-spec repository" >&2; exit 2; fi
	@COVE=$(CURDIR)/bin/cove conformance/serve.sh "$(SUITE)"

# TOOL is the check that `az aks check-acr` runs on a node, built by you.
canipull: bin/cove $(CRANE)
	@if [ ! -x "$(TOOL)" ]; then echo "usage: make canipull TOOL=PATH, the program of the repository Azure/aks-canipull" >&2; exit 2; fi
	@CANIPULL=$(abspath $(TOOL)) COVE=$(CURDIR)/bin/cove CRANE=$(CRANE) go test -count 1 -v -timeout 10m -run '^TestRootCanipull$$' ./scenarios

$(STATICCHECK):
	@mkdir -p $(TOOLS) && GOBIN=$(TOOLS)/new go install honnef.co/go/tools/cmd/staticcheck@v0.8.2 && mv $(TOOLS)/new/staticcheck $@

$(GOFUMPT):
	@mkdir -p $(TOOLS) && GOBIN=$(TOOLS)/new go install mvdan.cc/gofumpt@v0.12.0 && mv $(TOOLS)/new/gofumpt $@

$(CRANE):
	@mkdir -p $(TOOLS) && GOBIN=$(TOOLS)/new go install github.com/google/go-containerregistry/cmd/crane@v0.22.1 && mv $(TOOLS)/new/crane $@

# It compiles for minutes.
$(HELM):
	@mkdir -p $(TOOLS) && GOBIN=$(TOOLS)/new go install helm.sh/helm/v3/cmd/helm@v3.22.0 && mv $(TOOLS)/new/helm $@

clean:
	@rm -rf bin .run
