# pseudoris with the locked packages, for a CPU or (docker run --gpus all) an NVIDIA GPU.
#
#   docker build -t pseudoris .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" \
#     -v "$PWD/images:/images:ro" -v "$PWD/work:/work" -v "$HOME/.cache/pseudoris:/weights" \
#     pseudoris masks --images /images --gpu 0
#
# PyTorch's Linux wheels bring the CUDA libraries; the host needs a driver and the NVIDIA container toolkit.
# There is no C++ compiler inside, so `numerics.compile` is refused.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
RUN python -m venv /opt/pseudoris && pip install uv==0.13.9
WORKDIR /src
COPY requirements.lock ./
RUN uv pip install --python /opt/pseudoris/bin/python --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY configs ./configs
COPY third_party ./third_party
COPY pseudoris_cli ./pseudoris_cli
RUN uv pip install --python /opt/pseudoris/bin/python --no-build-isolation --no-deps .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/pseudoris /opt/pseudoris
RUN useradd --create-home --uid 1000 --user-group pseudoris && install -d -o pseudoris -g pseudoris /work /weights
# A user id from `docker run --user` has no home: what needs one finds it in /tmp.
ENV PATH=/opt/pseudoris/bin:$PATH \
    PSEUDORIS_WORK=/work \
    PSEUDORIS_WEIGHTS=/weights \
    HF_HOME=/weights/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["pseudoris"]
CMD ["--help"]
