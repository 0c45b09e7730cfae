# The image of deploy/kube-flannel.yml: flanneld, the CNI plugins, nft and iptables, without a shell.
#
#   docker build -t cni-plugins-flannel .
#
# It is built from Debian's packages and build/requirements.lock alone, for the platform that the engine is asked for
# (--platform). docs/cluster.md says what is in it, and what of this was run where.
#
# The digest is that of the index of all platforms. docs/releases.md says how to renew it.
ARG BASE=docker.io/library/debian:12-slim@sha256:7c7b2c966bc9ee8cedfeef67e0e279108992c77681fa595db4a9d65c06ccc587

FROM ${BASE} AS build
# Everything is installed here, so that `make` itself needs no root.
COPY build/packages.txt /tmp/
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends make python3 \
        $(sed -nE 's/^(build|image-content): //p' /tmp/packages.txt) >/dev/null \
    && rm -rf /var/lib/apt/lists/* /tmp/packages.txt \
    && useradd --create-home builder
USER builder
WORKDIR /home/builder/source
# The packages first: they change less often than the source.
COPY --chown=builder Makefile pyproject.toml ./
COPY --chown=builder build/overlay.py build/packages.txt build/requirements.lock build/venv.py build/
RUN make packages
COPY --chown=builder . .
ARG SOURCE_DATE_EPOCH=0
RUN make build build-flanneld && .venv/bin/python build/image.py /home/builder/image

FROM scratch
LABEL org.opencontainers.image.title="cni-plugins-flannel" \
    org.opencontainers.image.description="flanneld and the CNI plugins, in Python" \
    org.opencontainers.image.version="v0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build --chown=0:0 /home/builder/image /
ENTRYPOINT ["/opt/bin/flanneld"]
