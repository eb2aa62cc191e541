# megagrow on NVIDIA's PyTorch image: PyTorch, NCCL, Transformer Engine and apex are theirs and stay
# as they are; everything else is installed by the same `make setup` as anywhere.
#
#   docker build -t megagrow .
#   docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" -v "$PWD:/workspace" megagrow \
#       --nproc-per-node 8 /opt/megagrow/pretrain_grow.py examples/quickstart.yaml
#
# The arguments are torchrun's. On several nodes start one container per node from
# examples/slurm/pretrain.sbatch (docs/cluster.md).
ARG NGC_TAG=26.05-py3
FROM nvcr.io/nvidia/pytorch:${NGC_TAG}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /opt/megagrow

# What the installation reads, first: a change elsewhere does not install again.
COPY Makefile pyproject.toml setup.py README.md LICENSE ./
COPY tools/setup_environment.py tools/
COPY megagrow/__init__.py megagrow/
COPY megagrow/kernels/__init__.py megagrow/kernels/
COPY csrc csrc/
# The image has nvcc: a build without the CUDA kernels would be a mistake.
ENV MEGAGROW_CUDA=1
RUN make setup EXTRAS= && rm -rf /root/.cache

COPY . .
# Any user may run it: readable code, no bytecode writing, and a home that is not root's.
RUN find . -path ./.venv -prune -o -exec chmod a+rX {} + && mkdir -p /workspace && chmod 1777 /workspace
ENV HOME=/workspace \
    LOGNAME=megagrow \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/megagrow/.venv/bin:${PATH}
WORKDIR /workspace
USER 1000:1000

ENTRYPOINT ["python", "-m", "torch.distributed.run"]
CMD ["--help"]
