# CPU:  docker build -t geo_seg .
# CUDA: docker build -t geo_seg:cuda --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime .
# Run:  docker run --rm -v $PWD/data:/home/geo/app/data -v $PWD/runs:/home/geo/app/runs geo_seg python train.py
ARG BASE=python:3.11-slim
FROM ${BASE}
# rasterio's wheels need libexpat1, which slim images lack
RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home geo
WORKDIR /home/geo/app
# what the base image has of torch satisfies the range in pyproject.toml and stays
COPY pyproject.toml setup.py README.md LICENSE ./
COPY geo_seg geo_seg
COPY losses losses
COPY hydra_plugins hydra_plugins
RUN pip install --no-cache-dir -e ".[pretrained]"
COPY config config
COPY train.py inference.py ./
RUN mkdir -p data runs sweeps predictions && chown -R geo:geo .
USER geo
CMD ["python", "train.py", "--help"]
