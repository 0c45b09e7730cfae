# The two that matter: `make demo` (does the main job, in namespaces of its own) and `make test`.

# Debian's own interpreter: its libpython is what the plugins are made of.
PYTHON ?= /usr/bin/python3

# Said before anything else, by the plainest shell: what came later would be about something that is missing.
ifneq ($(filter-out help clean rollback,$(or $(MAKECMDGOALS),help)),)
MACHINE := $(shell . /etc/os-release 2>/dev/null; echo "$$ID $$VERSION_ID, Python \
	$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo not found)")
ifneq ($(MACHINE),debian 12, Python 3.11)
$(error make needs Debian 12 and its python3 (3.11), and this is $(MACHINE); what it builds runs on any Linux)
endif
endif

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# Runs a command with the packages of a group in build/packages.txt, which the machine itself does not get.
IN := $(PYTHON) build/overlay.py
VENV := .venv
BIN := $(VENV)/bin
BINDIR ?= /opt/cni/bin
BUNDLE := dist/cni
DAEMON := dist/flanneld
# What a release is made for; arm64 by a cross compiler and an emulator.
ARCHES ?= $(if $(filter x86_64,$(shell uname -m)),amd64 arm64,arm64)
ALL := $(BUNDLE)/.built $(DAEMON)/.built
ifeq ($(ARCHES),amd64 arm64)
ALL += dist/arm64/cni/.built dist/arm64/flanneld/.built
endif
WORKERS ?= 3
ENGINE ?= docker
# What the manifest asks for.
IMAGE ?= $(shell sed -n 's/^ *image: *//p' deploy/kube-flannel.yml | sort -u)
KERNEL := .work/vm/kernel
# Built from Debian's source in ten minutes, so it is kept outside of the tree.
KUBE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cni-plugins/kubernetes
# The image makes the environment before these folders are there.
SOURCES := $(shell find build cni_plugins conflist ipam -type f -not -name '*.pyc' 2>/dev/null | sort)
DAEMON_SOURCES := $(shell find flanneld -type f -not -name '*.pyc' 2>/dev/null | sort)

# Of build/, whose flanneld.py has the name of a package.
SCRIPTS := $(filter-out flanneld.py,$(notdir $(wildcard build/*.py)))

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(BUNDLE)/.built ## Build, then show a two-pod flannel network at work
	@$(IN) demo $(BIN)/python -m demo $(BUNDLE)

.PHONY: demo-cluster
demo-cluster: $(BUNDLE)/.built $(DAEMON)/.built ## Build, then show pods on several machines talk through flanneld
	@$(IN) demo $(BIN)/python -m demo.cluster $(BUNDLE) $(DAEMON)/flanneld

.PHONY: test
test: lint $(BUNDLE)/.built $(DAEMON)/.built ## Check style, types and layers; run all tests
	SUITE_BIN=$(BUNDLE) $(IN) test $(BIN)/pytest -n $(WORKERS)

.PHONY: test-vm
test-vm: $(BUNDLE)/.built kernel ## Run the tests that need kernel features, on Debian's kernel in a VM (ARGS=… for pytest)
	@SUITE_BIN=$(BUNDLE) $(IN) vm $(BIN)/python -m integration.vm $(KERNEL) $(ARGS)

.PHONY: test-kube
test-kube: $(KUBE)/kubelet $(BUNDLE)/.built $(DAEMON)/.built ## Run the tests with a real apiserver and kubelets, built once into KUBE=…
	@KUBE_BIN=$(KUBE) SUITE_BIN=$(BUNDLE) $(IN) kube $(BIN)/pytest $(or $(ARGS),integration/kube)

.PHONY: test-kube-vm
test-kube-vm: $(KUBE)/kubelet $(BUNDLE)/.built $(DAEMON)/.built kernel ## Run what of it needs Debian's kernel (ipip, wireguard), in a VM
	@KUBE_BIN=$(KUBE) SUITE_BIN=$(BUNDLE) FLANNELD=$(DAEMON)/flanneld $(IN) kube-vm \
		$(BIN)/python -m integration.vm $(KERNEL) $(or $(ARGS),-m kernel integration/kube)

.PHONY: test-arm64
test-arm64: $(ALL) ## Build everything for arm64, and run under qemu what runs there (10 minutes)
	@SUITE_BIN=$(BUNDLE) $(IN) test $(BIN)/pytest -n $(WORKERS) $(or $(ARGS),-m arm64 integration)

.PHONY: lint
lint: $(VENV)/.made ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd build && MYPYPATH=.. ../$(BIN)/mypy --config-file=../pyproject.toml --explicit-package-bases $(SCRIPTS)
	$(BIN)/lint-imports
	$(BIN)/python build/compile_config.py --check
	$(BIN)/python build/errors_page.py --check

.PHONY: bench
bench: bench-plugins bench-scale ## Compare with the Go plugins, measure flanneld with 5,000 nodes (6 minutes)

.PHONY: bench-plugins
bench-plugins: $(BUNDLE)/.built $(if $(PEER),.work/peer/$(PEER)) ## Compare with Debian's Go plugins (PEER=forky: those of another release, PEER_BIN=…: others)
	@$(if $(PEER),PEER_BIN=.work/peer/$(PEER)/usr/lib/cni) $(IN) test $(BIN)/python -m bench $(ARGS)

.work/peer/%:
	@$(IN) build $(PYTHON) build/debian.py unpack --release $* $@ containernetworking-plugins

.PHONY: bench-scale
bench-scale: $(BUNDLE)/.built $(DAEMON)/.built ## Measure flanneld with 1,000 and 5,000 nodes
	@FLANNELD=$(DAEMON)/flanneld $(IN) test $(BIN)/python -m bench.cluster --no-paths

.PHONY: prove
prove: $(BUNDLE)/.built ## Kill plugins at every system call, feed them a million hostile inputs (hours; ARGS="--sample 100" for less)
	@$(IN) test $(BIN)/python -m prove $(ARGS) $(BUNDLE)

.PHONY: fuzz-coverage
fuzz-coverage: .work/fuzz/.made ## Fuzz by code coverage for ten minutes (ARGS="-max_total_time=60" for less)
	@.work/fuzz/bin/python -m prove.coverage -max_total_time=600 $(ARGS)

.PHONY: bench-vm
bench-vm: $(BUNDLE)/.built kernel ## Compare the plugins that need Debian's kernel, in a VM (ARGS=… for bench)
	@SUITE_BIN=$(BUNDLE) $(IN) vm $(BIN)/python -m integration.vm $(KERNEL) \
		bench $(or $(ARGS),--containers 5 ipvlan vlan vrf)

.PHONY: bench-cluster-vm
bench-cluster-vm: $(BUNDLE)/.built $(DAEMON)/.built kernel ## Compare flanneld's paths on Debian's kernel, in a VM (ARGS=… for bench.cluster)
	@SUITE_BIN=$(BUNDLE) FLANNELD=$(DAEMON)/flanneld $(IN) vm $(BIN)/python -m integration.vm $(KERNEL) \
		bench.cluster $(or $(ARGS),--no-scale --backends ipip wireguard --rounds 24 --megabytes 8)

.PHONY: bench-cluster
bench-cluster: $(BUNDLE)/.built $(DAEMON)/.built ## Compare throughput through flanneld with the same devices made by hand (10 minutes)
	@FLANNELD=$(DAEMON)/flanneld $(IN) test $(BIN)/python -m bench.cluster $(or $(ARGS),--no-scale)

.PHONY: build
build: $(BUNDLE)/.built ## Build dist/cni: every plugin and cnictl

.PHONY: build-flanneld
build-flanneld: $(DAEMON)/.built ## Build dist/flanneld: the node daemon

.PHONY: packages
packages: $(VENV)/.made

.PHONY: shell
shell: $(VENV)/.made ## Start a shell where the packages are that tests need
	@$(IN) test $(or $(ARGS),bash)

.PHONY: dist
dist: $(ALL) ## Make the archives of a release for x86-64 and arm64 in dist, with their sums and what is in them (10 minutes)
	@$(IN) dist $(BIN)/python build/dist.py $(ARGS)

.PHONY: reproduce
reproduce: ## Build this commit twice, in two folders, and compare the archives (ARCHES="amd64 arm64": both, in half an hour)
	@ARCHES=$(firstword $(ARCHES)) $(IN) dist $(PYTHON) build/reproduce.py

.PHONY: image
image: ## Build the container image (ENGINE=docker or podman, IMAGE=…, PLATFORM=linux/arm64, IMAGE_SOURCE=… where its source is)
	$(ENGINE) build $(if $(PLATFORM),--platform $(PLATFORM)) --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(if $(IMAGE_SOURCE),--label org.opencontainers.image.source=$(IMAGE_SOURCE)) $(IMAGE_ARGS) -t $(IMAGE) .

.PHONY: image-oci
image-oci: $(ALL) ## Write the image into a file in dist, without a container engine or a registry
	@$(IN) dist $(BIN)/python build/oci.py $(ARGS)

.PHONY: test-image
test-image: .work/image/base.tar $(BUNDLE)/.built $(DAEMON)/.built ## Build the image with podman, on a Debian made by debootstrap, and run what is in it (10 minutes)
	@IMAGE_BASE=$(abspath $<) $(IN) image $(BIN)/pytest $(or $(ARGS),integration/image)

.PHONY: install
install: $(BUNDLE)/.built ## Install the bundle in BINDIR=/opt/cni/bin, atomically
	@$(PYTHON) -m cni_plugins.install --bundle $(BUNDLE) $(BINDIR)

.PHONY: rollback
rollback: ## Return BINDIR=/opt/cni/bin to the previous version
	@$(PYTHON) -m cni_plugins.install --roll-back $(BINDIR)

.PHONY: lock
lock: .work/pip-tools/.made ## Update the locked Python packages
	@$(IN) build .work/pip-tools/bin/python build/lock.py

.PHONY: clean
clean: ## Remove what was built
	rm -rf dist .work $(VENV)

$(BUNDLE)/.built: .work/sources $(SOURCES) $(VENV)/.made
	@$(IN) build $(BIN)/python build/build.py
	@touch $@

$(DAEMON)/.built: .work/sources .work/daemon-sources $(SOURCES) $(DAEMON_SOURCES) $(VENV)/.made
	@$(IN) build $(BIN)/python build/flanneld.py
	@touch $@

dist/arm64/cni/.built: .work/sources $(SOURCES) $(VENV)/.made
	@$(IN) dist $(BIN)/python build/build.py --arch arm64
	@touch $@

dist/arm64/flanneld/.built: .work/sources .work/daemon-sources $(SOURCES) $(DAEMON_SOURCES) $(VENV)/.made
	@$(IN) dist $(BIN)/python build/flanneld.py --arch arm64
	@touch $@

# The files' names: a bundle with a module that was deleted is older than this.
.PHONY: always
.work/sources .work/daemon-sources: always
	@mkdir -p $(@D)
	@printf '%s\n' $(if $(filter .work/sources,$@),$(SOURCES),$(DAEMON_SOURCES)) >$@.new
	@if cmp --silent $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(VENV)/.made: build/requirements.lock build/venv.py build/packages.txt
	@$(IN) build $(PYTHON) build/venv.py $(@D) $< .work/wheels
	@touch $@

.work/fuzz/.made: build/fuzz.lock build/venv.py
	@$(IN) build $(PYTHON) build/venv.py $(@D) $< .work/wheels
	@touch $@

.work/pip-tools/.made: build/pip-tools.lock build/venv.py
	@$(IN) build $(PYTHON) build/venv.py $(@D) $< .work/wheels
	@touch $@

# It is only unpacked: the machine's own kernel stays what it is. Debian's newest is asked for each time.
.PHONY: kernel
kernel:
	@$(IN) vm $(PYTHON) -m integration.vm.kernel $(KERNEL)

# In a registry's stead.
.work/image/base.tar: integration/image/base.py
	@echo "making a Debian for the image …"
	@$(IN) image $(PYTHON) -m integration.image.base $@

$(KUBE)/kubelet: | $(VENV)/.made
	@mkdir -p $(dir $(@D))
	@$(IN) kube $(BIN)/python -m integration.kube.build $(@D)
