# The image of deploy/kube-flannel.yml: flanneld, the CNI plugins, nft and iptables, without a shell.
#
#   docker build -t cni-plugins-flannel .
#
# It is built from Debian's packages and build/requirements.lock alone. docs/cluster.md says what is in it, and what
# of this was run where.
ARG BASE=docker.io/library/debian:12-slim

FROM ${BASE} AS build
# What the Makefile asks for is installed here, so that `make` itself needs no root.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        binutils ca-certificates gcc iptables libc6-dev libpython3.11 libpython3.11-dev make nftables python3 \
        python3-venv >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home builder
USER builder
WORKDIR /home/builder/source
# The packages first: they change less often than the source.
COPY --chown=builder Makefile pyproject.toml ./
COPY --chown=builder build/requirements.lock build/
RUN make packages
COPY --chown=builder . .
RUN make build build-flanneld && python3 build/image.py /home/builder/image

FROM scratch
LABEL org.opencontainers.image.title="cni-plugins-flannel" \
    org.opencontainers.image.description="flanneld and the CNI plugins, in Python" \
    org.opencontainers.image.version="v0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build --chown=0:0 /home/builder/image /
ENTRYPOINT ["/opt/bin/flanneld"]
