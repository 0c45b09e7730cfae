# The two that matter: `make demo` (does the main job, in namespaces of its own) and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# Debian's own interpreter: its libpython is what the bundle is made of.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
BINDIR ?= /opt/cni/bin
BUNDLE := dist/cni
DAEMON := dist/flanneld
WORKERS ?= 3
ENGINE ?= docker
# What the manifest asks for.
IMAGE ?= $(shell sed -n 's/^ *image: *//p' deploy/kube-flannel.yml | sort -u)

BUILD_PACKAGES := binutils gcc libc6-dev libpython3.11 libpython3.11-dev python3-venv
TEST_PACKAGES := busybox-static conntrack containerd containernetworking-plugins dbus dnsmasq-base etcd-client \
	etcd-server ethtool firewalld iperf3 iproute2 iptables iputils-ping isc-dhcp-server nftables podman procps runc \
	shellcheck strace util-linux wireguard-tools
IMAGE_PACKAGES := debootstrap podman runc
VM_PACKAGES := busybox-static kmod qemu-system-x86 util-linux
KUBE_PACKAGES := dpkg-dev golang-go kubernetes-client rsync
KERNEL := .work/vm/kernel
# Built from Debian's source in ten minutes, so it is kept outside of the tree.
KUBE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cni-plugins/kubernetes
# The image installs the packages before these folders are there.
SOURCES := $(shell find cni_plugins conflist ipam build -type f -not -name '*.pyc' 2>/dev/null)
DAEMON_SOURCES := $(shell find flanneld -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(BUNDLE)/.built .work/test-packages ## Build, then show a two-pod flannel network at work
	@$(BIN)/python -m demo $(BUNDLE)

.PHONY: demo-cluster
demo-cluster: $(BUNDLE)/.built $(DAEMON)/.built .work/test-packages ## Build, then show pods on several machines talk through flanneld
	@$(BIN)/python -m demo.cluster $(BUNDLE) $(DAEMON)/flanneld

.PHONY: test
test: lint $(BUNDLE)/.built .work/test-packages ## Check style, types and layers; run all tests
	SUITE_BIN=$(BUNDLE) $(BIN)/pytest -n $(WORKERS)

.PHONY: test-vm
test-vm: $(BUNDLE)/.built $(KERNEL)/.unpacked .work/test-packages .work/vm-packages ## Run the tests that need kernel features, on Debian's kernel in a VM (ARGS=… for pytest)
	@SUITE_BIN=$(BUNDLE) $(BIN)/python -m integration.vm $(KERNEL) $(ARGS)

.PHONY: test-kube
test-kube: $(KUBE)/kubelet $(BUNDLE)/.built $(DAEMON)/.built .work/test-packages ## Run the tests with a real apiserver and kubelets, built once into KUBE=…
	@KUBE_BIN=$(KUBE) SUITE_BIN=$(BUNDLE) $(BIN)/pytest $(or $(ARGS),integration/kube)

.PHONY: test-kube-vm
test-kube-vm: $(KUBE)/kubelet $(BUNDLE)/.built $(DAEMON)/.built $(KERNEL)/.unpacked .work/test-packages .work/vm-packages ## Run what of it needs Debian's kernel (ipip, wireguard), in a VM
	@KUBE_BIN=$(KUBE) SUITE_BIN=$(BUNDLE) FLANNELD=$(DAEMON)/flanneld $(BIN)/python -m integration.vm $(KERNEL) \
		$(or $(ARGS),-m kernel integration/kube)

.PHONY: lint
lint: $(VENV)/.made ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python build/compile_config.py --check
	$(BIN)/python build/errors_page.py --check

.PHONY: bench
bench: bench-plugins bench-scale ## Compare with the Go plugins, measure flanneld with 5,000 nodes (6 minutes)

.PHONY: bench-plugins
bench-plugins: $(BUNDLE)/.built .work/test-packages ## Compare with the Go plugins (PEER_BIN=… if not Debian's)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-scale
bench-scale: $(BUNDLE)/.built $(DAEMON)/.built .work/test-packages ## Measure flanneld with 1,000 and 5,000 nodes
	@FLANNELD=$(DAEMON)/flanneld $(BIN)/python -m bench.cluster --no-paths

.PHONY: prove
prove: $(BUNDLE)/.built .work/test-packages ## Kill plugins at every system call, feed them a million hostile inputs (hours; ARGS="--sample 100" for less)
	@$(BIN)/python -m prove $(ARGS) $(BUNDLE)

.PHONY: fuzz-coverage
fuzz-coverage: $(VENV)/.made ## Fuzz by code coverage for ten minutes (ARGS="-max_total_time=60" for less)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install -qq --disable-pip-version-check 'atheris>=3'
	@$(BIN)/python -m prove.coverage -max_total_time=600 $(ARGS)

.PHONY: bench-vm
bench-vm: $(BUNDLE)/.built $(KERNEL)/.unpacked .work/test-packages .work/vm-packages ## Compare the plugins that need Debian's kernel, in a VM (ARGS=… for bench)
	@SUITE_BIN=$(BUNDLE) $(BIN)/python -m integration.vm $(KERNEL) bench $(or $(ARGS),--containers 5 ipvlan vlan vrf)

.PHONY: bench-cluster-vm
bench-cluster-vm: $(BUNDLE)/.built $(DAEMON)/.built $(KERNEL)/.unpacked .work/test-packages .work/vm-packages ## Compare flanneld's paths on Debian's kernel, in a VM (ARGS=… for bench.cluster)
	@SUITE_BIN=$(BUNDLE) FLANNELD=$(DAEMON)/flanneld $(BIN)/python -m integration.vm $(KERNEL) bench.cluster \
		$(or $(ARGS),--no-scale --backends ipip wireguard --rounds 24 --megabytes 8)

.PHONY: bench-cluster
bench-cluster: $(BUNDLE)/.built $(DAEMON)/.built .work/test-packages ## Compare throughput through flanneld with the same devices made by hand (10 minutes)
	@FLANNELD=$(DAEMON)/flanneld $(BIN)/python -m bench.cluster $(or $(ARGS),--no-scale)

.PHONY: build
build: $(BUNDLE)/.built ## Build dist/cni: every plugin and cnictl

.PHONY: build-flanneld
build-flanneld: $(DAEMON)/.built ## Build dist/flanneld: the node daemon

.PHONY: packages
packages: $(VENV)/.made

.PHONY: image
image: ## Build the container image (ENGINE=docker or podman, IMAGE=… names it, IMAGE_SOURCE=… tells where its source is)
	$(ENGINE) build $(if $(IMAGE_SOURCE),--label org.opencontainers.image.source=$(IMAGE_SOURCE)) $(IMAGE_ARGS) -t $(IMAGE) .

.PHONY: test-image
test-image: .work/image/base.tar $(VENV)/.made .work/test-packages ## Build the image with podman, on a Debian made by debootstrap, and run what is in it (10 minutes)
	@IMAGE_BASE=$(abspath $<) $(BIN)/pytest $(or $(ARGS),integration/image)

.PHONY: install
install: $(BUNDLE)/.built ## Install the bundle in BINDIR=/opt/cni/bin, atomically
	@$(PYTHON) -m cni_plugins.install --bundle $(BUNDLE) $(BINDIR)

.PHONY: rollback
rollback: ## Return BINDIR=/opt/cni/bin to the previous version
	@$(PYTHON) -m cni_plugins.install --roll-back $(BINDIR)

.PHONY: lock
lock: $(VENV)/.made ## Update build/requirements.lock
	$(BIN)/pip install -q pip-tools
	$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --no-header --strip-extras --extra dev --extra flanneld -o build/requirements.lock pyproject.toml

.PHONY: clean
clean: ## Remove what was built
	rm -rf dist .work $(VENV)

$(BUNDLE)/.built: $(SOURCES) $(VENV)/.made
	@$(BIN)/python build/build.py
	@touch $@

$(DAEMON)/.built: $(SOURCES) $(DAEMON_SOURCES) $(VENV)/.made
	@$(BIN)/python build/flanneld.py
	@touch $@

$(VENV)/.made: build/requirements.lock .work/build-packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked Python packages …"
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

# It is only unpacked: the machine's own kernel stays what it is.
$(KERNEL)/.unpacked: integration/vm/kernel.py | .work/vm-packages
	@echo "downloading Debian's kernel …"
	@$(PYTHON) -m integration.vm.kernel $(@D)
	@touch $@

# In a registry's stead.
.work/image/base.tar: integration/image/base.py | .work/image-packages
	@echo "making a Debian for the image …"
	@$(PYTHON) -m integration.image.base $@

$(KUBE)/kubelet: | $(VENV)/.made .work/kube-packages
	@mkdir -p $(dir $(@D))
	@$(BIN)/python -m integration.kube.build $(@D)

# Debian's packages are installed only when one is missing, so that a second run asks nobody. Servers among them are
# for the tests' own namespaces: none is started on the machine (policy-rc.d, invoke-rc.d(8)).
POLICY := /usr/sbin/policy-rc.d
.work/build-packages: PACKAGES = $(BUILD_PACKAGES)
.work/test-packages: PACKAGES = $(TEST_PACKAGES)
.work/vm-packages: PACKAGES = $(VM_PACKAGES)
.work/kube-packages: PACKAGES = $(KUBE_PACKAGES)
.work/image-packages: PACKAGES = $(IMAGE_PACKAGES)
.work/build-packages .work/test-packages .work/vm-packages .work/kube-packages .work/image-packages: Makefile
	@mkdir -p $(@D)
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || { echo "installing $(PACKAGES) …"; \
		test -e $(POLICY) || { trap 'rm -f $(POLICY)' EXIT; printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod 755 $(POLICY); }; \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null; }
	@touch $@
