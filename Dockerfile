# pretrim on a CPU: `docker build -t pretrim .`, then `docker run --rm -v "$PWD":/work pretrim plan resnet20 --macs 0.5x`.
# PyTorch's own index has builds without CUDA, a tenth of the size of PyPI's; TORCH names the version.
FROM python:3.11-slim-bookworm AS build

ARG TORCH=2.13.0
ARG EXTRAS=data,study,onnx
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/pretrim \
    && /opt/pretrim/bin/pip install --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}"
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/pretrim/bin/pip install ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm

COPY --from=build /opt/pretrim /opt/pretrim
ENV PATH=/opt/pretrim/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 1000 pretrim
USER 1000
WORKDIR /work
ENTRYPOINT ["pretrim"]
CMD ["--help"]
