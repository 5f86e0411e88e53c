# syntax=docker/dockerfile:1
# One slim image for each role: `docker build --target router -t skillmesh/router .`
# pip takes its index and credentials as usual: --build-arg PIP_INDEX_URL=… PIP_EXTRA_INDEX_URL=…
ARG PYTHON=python:3.11-slim-bookworm

# What each role installs, in a virtual environment of its own; none of these stages is shipped.
FROM ${PYTHON} AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY pyproject.toml requirements.lock ./
# pip of the image may be older than dependency groups.
RUN pip install --no-cache-dir "pip>=25.1" && python -m venv --without-pip /opt/skillmesh

FROM packages AS packages-card-store
RUN pip --python /opt/skillmesh install --no-cache-dir --group card-store -c requirements.lock
FROM packages AS packages-router
RUN pip --python /opt/skillmesh install --no-cache-dir --group router -c requirements.lock
FROM packages AS packages-factory
RUN pip --python /opt/skillmesh install --no-cache-dir --group factory -c requirements.lock
FROM packages AS packages-distiller
RUN pip --python /opt/skillmesh install --no-cache-dir --group distiller -c requirements.lock
FROM packages AS packages-trainer
RUN pip --python /opt/skillmesh install --no-cache-dir --group trainer -c requirements.lock
FROM packages AS packages-inference
RUN pip --python /opt/skillmesh install --no-cache-dir --group inference -c requirements.lock
FROM packages AS packages-hierarchy
RUN pip --python /opt/skillmesh install --no-cache-dir --group hierarchy -c requirements.lock
FROM packages AS packages-gateway
RUN pip --python /opt/skillmesh install --no-cache-dir --group gateway -c requirements.lock

# What all roles run in: no pip, no compiler, a user without rights, a root that may be read-only.
FROM ${PYTHON} AS role
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent skillmesh \
    && install --directory --owner=skillmesh --group=skillmesh --mode=0750 \
      /var/lib/skillmesh /var/lib/skillmesh/keyring
ENV PATH=/opt/skillmesh/bin:$PATH \
    PYTHONPATH=/srv/skillmesh \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    TOKENIZERS_PARALLELISM=false \
    HF_HUB_OFFLINE=1 \
    HOME=/tmp \
    SKILLMESH__CLUSTER__STATE_DIR=/var/lib/skillmesh \
    SKILLMESH__TELEMETRY__LOG_FORMAT=json
WORKDIR /srv/skillmesh
COPY config.yaml ./
COPY shared ./shared
COPY services/__init__.py ./services/
USER 10001:10001
VOLUME /var/lib/skillmesh
STOPSIGNAL SIGTERM

FROM role AS card-store
COPY --from=packages-card-store /opt/skillmesh /opt/skillmesh
COPY services/card_store ./services/card_store
EXPOSE 7405 7406
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "card_store.address"]
CMD ["python", "-m", "services.card_store"]

FROM role AS router
COPY --from=packages-router /opt/skillmesh /opt/skillmesh
COPY services/router ./services/router
EXPOSE 7401
HEALTHCHECK --interval=15s --timeout=6s --start-period=180s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "router.address"]
CMD ["python", "-m", "services.router"]

FROM role AS factory
COPY --from=packages-factory /opt/skillmesh /opt/skillmesh
COPY services/factory ./services/factory
EXPOSE 7402
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "factory.address"]
CMD ["python", "-m", "services.factory"]

FROM role AS distiller
USER root
# Code bases are read with git, and only by this role.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=packages-distiller /opt/skillmesh /opt/skillmesh
COPY services/distiller ./services/distiller
COPY knowledge ./knowledge
EXPOSE 7403
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "distiller.address"]
CMD ["python", "-m", "services.distiller"]

FROM role AS trainer
COPY --from=packages-trainer /opt/skillmesh /opt/skillmesh
COPY services/trainer ./services/trainer
EXPOSE 7404
HEALTHCHECK --interval=15s --timeout=6s --start-period=180s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "trainer.address"]
CMD ["python", "-m", "services.trainer"]

FROM role AS inference
COPY --from=packages-inference /opt/skillmesh /opt/skillmesh
COPY services/inference ./services/inference
EXPOSE 7407
HEALTHCHECK --interval=15s --timeout=6s --start-period=180s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "inference.address"]
CMD ["python", "-m", "services.inference"]

FROM role AS hierarchy
COPY --from=packages-hierarchy /opt/skillmesh /opt/skillmesh
COPY services/hierarchy ./services/hierarchy
EXPOSE 7408 7409 7410
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "hierarchy.address"]
CMD ["python", "-m", "services.hierarchy"]

FROM role AS gateway
COPY --from=packages-gateway /opt/skillmesh /opt/skillmesh
COPY services/gateway ./services/gateway
EXPOSE 7400
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --start-interval=2s \
  CMD ["python", "-m", "shared.rpc.probe", "gateway.address", "--path", "/healthz"]
CMD ["python", "-m", "services.gateway.web"]
