# Every target installs what it lacks (scripts/setup.sh).
LINK ?= ipvlan

.PHONY: all build demo test test-full test-kernels bench lint clean help
all: build

help:
	@echo 'make demo [LINK=macvlan]  bring a lab up, run the walkthrough on real packets, take it down'
	@echo 'make test                 all tests: pure, kernel, lab, and those that need the small VM'
	@echo 'make test-kernels         the kernel tests and the lab on Debian'"'"'s kernels 5.10, 6.1, 6.12 and 7.2'
	@echo 'make test-full            everything: all tests in their long form, then test-kernels'
	@echo 'make build                the CLI (dist/) and the CNI shim (shim/build/)'
	@echo 'make bench SUITE=cni      a benchmark suite; see docs/reference/bench.md'
	@echo 'make lint                 types, lint rules, formatting'
	@echo 'make clean                remove what the build made'

build:
	@scripts/setup.sh build
	@node scripts/build.mjs

demo:
	@scripts/setup.sh build demo
	@node scripts/build.mjs
	@./bin/sluice lab demo --link $(LINK)

test:
	@scripts/setup.sh build test
	@node scripts/build.mjs
	@node --import tsx test/real-apiserver/build.ts --optional
	@node scripts/test.mjs

test-kernels:
	@scripts/setup.sh build test
	@node scripts/build.mjs
	@node scripts/test-kernels.mjs $(KERNELS)

test-full:
	@scripts/setup.sh build test
	@node scripts/build.mjs
	@node scripts/test-full.mjs

bench:
	@scripts/setup.sh build test
	@node scripts/build.mjs
	@npm run --silent bench -- $(or $(SUITE),cni) $(ARGS)

lint:
	@scripts/setup.sh build
	@npm run --silent typecheck
	@npm run --silent lint

clean:
	rm -rf dist
	$(MAKE) --no-print-directory -C shim clean
