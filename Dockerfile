# The operator's image.
#
#   docker build -t stoker:0.1.0 .
#
# For a release, pin the base image by what its tag means today (docker buildx imagetools inspect python:3.13-slim):
#
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:… --build-arg REVISION=$(git rev-parse HEAD) …
#
# Everything from a package index is checked against the hashes in requirements/.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/operator.txt requirements/
# pip stays in this environment: the one that is shipped is without it.
RUN python -m venv /opt/build \
 && python -m venv --without-pip /opt/stoker \
 && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/stoker/bin/python install \
      --require-hashes --only-binary=:all: -r requirements/operator.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY operator/ operator/
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/stoker/bin/python install --no-index --no-deps /dist/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Stoker" \
      org.opencontainers.image.description="A Kubernetes operator for fleets of LLM inference engines" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/stoker /opt/stoker
# The root file system is read-only in a cluster; the bytecode is in the image already.
ENV PATH=/opt/stoker/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
# By number: the kubelet cannot tell whether a name is root.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["stoker"]
CMD ["run"]
