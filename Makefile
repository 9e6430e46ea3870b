# make build   bin/signdropd and bin/signdrop, static
# make demo    one whole round on this machine
# make demo-offline   a round without a network: Electrum, ethers and a stick
# make image   build/: OCI archives for s390x and amd64, with their SBOMs
# make test    everything that needs no machine of its own
# make guest-test  power cuts of an emulated s390x machine, and a restore in it (GUEST='-cuts N -seed N')
# make bench   the table of docs/performance.md
# make fuzz    each fuzz target for FUZZTIME (default 20s)

GO        ?= go
FUZZTIME  ?= 20s
GUEST     ?=
export CGO_ENABLED := 0

.PHONY: all build image demo demo-offline test check tidy unit race pkcs11 s390x guest-test fuzz bench vulncheck clean

all: build

build:
	$(GO) build -trimpath -o bin/ ./appliance/signdropd ./tools/signdrop

# Without a container engine; the same source makes the same digests.
image:
	$(GO) run ./tools/image -o build

demo: build
	tools/demo.sh

demo-offline: build
	tools/demo-offline.sh

test: check unit race pkcs11 s390x

# What can be said without running anything.
check: tidy
	@test -z "$$(gofmt -l .)" || { echo "gofmt: run gofmt -w on:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	GOARCH=s390x $(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) vet -tags guest ./tools/guest/...
	$(GO) tool staticcheck -tags guest ./tools/guest/...

tidy:
	$(GO) mod tidy -diff
	$(GO) mod verify

unit:
	tools/ci/gotest.sh ./...

# The race detector needs cgo. The crash tests enumerate thousands of states
# serially and have nothing to race; -short leaves their samples.
race:
	CGO_ENABLED=1 tools/ci/gotest.sh -race -short ./...

# Tokens take cgo, so they are behind a build tag; the tests use SoftHSM 2.
pkcs11:
	CGO_ENABLED=1 $(GO) vet -tags pkcs11 ./keyfs/... ./appliance/signdropd ./tools/signdrop
	CGO_ENABLED=1 tools/ci/gotest.sh -tags pkcs11 -short ./keyfs/seal

# The target is big-endian. The tests are built here and run by the emulator.
s390x:
	GOARCH=s390x tools/ci/gotest.sh -short -exec "$$(command -v qemu-s390x-static)" ./...

# Debian's kernel for s390x, the image, and a disk that forgets what was not synced.
guest-test:
	$(GO) test -tags guest -count=1 -v -timeout 30m -run 'TestPowerCuts|TestRestoreDrill' ./tools/guest $(if $(GUEST),-args $(GUEST))

fuzz:
	FUZZTIME=$(FUZZTIME) tools/ci/fuzz.sh

bench: build
	$(GO) run ./tools/bench

# Needs the vulnerability database at vuln.go.dev.
vulncheck:
	$(GO) tool govulncheck ./...

clean:
	rm -rf bin build demo demo-offline bench
