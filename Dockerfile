# The service in one image: Python, the service's dependencies, the committed models. No torch, no training.
#
#   docker build -t cogan .                                       runs on the CPU
#   docker build -t cogan:gpu --build-arg PROVIDER=gpu .          runs on an NVIDIA GPU
#   docker run --rm -p 8000:8000 --read-only --tmpfs /tmp cogan

ARG PYTHON=3.13
ARG PROVIDER=cpu

FROM python:${PYTHON}-slim AS dependencies
ARG PROVIDER
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
WORKDIR /app
COPY pyproject.toml constraints.txt ./
# Editable: the environment points to /app, where the code comes later, so that this layer outlives its changes.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir service && touch service/__init__.py README.md \
    && pip --python /opt/venv/bin/python install -c constraints.txt --editable ".[${PROVIDER},remote,tracing]"

FROM python:${PYTHON}-slim AS runtime
RUN groupadd --gid 10001 cogan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin cogan
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /app
COPY docker/healthcheck.py ./
COPY service service
COPY models models
# Files are readable for any user id and writable for none, whatever the umask of the checkout; nothing is written later.
RUN chmod -R u=rwX,go=rX /app && python -m compileall -q service
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    COGAN_HOST=0.0.0.0 COGAN_MODELS_DIR=/app/models

FROM runtime AS runtime-cpu

# The same slim base serves: onnxruntime-gpu[cuda,cudnn] brings CUDA and cuDNN as wheels, and the NVIDIA
# container runtime brings the driver.
FROM runtime AS runtime-gpu
ENV COGAN_PROVIDER=cuda CUDA_CACHE_PATH=/tmp/cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime-${PROVIDER}
LABEL org.opencontainers.image.title="cogan" \
      org.opencontainers.image.description="Coupled images of several domains over HTTP" \
      org.opencontainers.image.licenses="MIT"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python", "/app/healthcheck.py"]
ENTRYPOINT ["python", "-m", "service"]
