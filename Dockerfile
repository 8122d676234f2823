# An image whose entry point runs any command of this code:
#   docker build -t 3d-resnets .
#   docker run --rm -v "$PWD:/data" 3d-resnets predict /data/a.mp4 --weights /data/save_200.pth
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" 3d-resnets main --video_path /data/videos ...
FROM python:3.12-slim

# torch's wheels for NVIDIA GPUs run on the CPU too; this index has smaller ones without CUDA:
#   docker build --build-arg INDEX="--index-url https://download.pytorch.org/whl/cpu" .
ARG INDEX=""
WORKDIR /opt/3d-resnets
COPY requirements.txt requirements-export.txt ./
RUN pip install --no-cache-dir $INDEX "torch>=2.11" "torchvision>=0.26" \
    && pip install --no-cache-dir -r requirements.txt -r requirements-export.txt
COPY . .
ENV PYTHONPATH=/opt/3d-resnets PYTHONUNBUFFERED=1
# Relative paths of a command are those of the folder that is mounted there.
WORKDIR /data
ENTRYPOINT ["/opt/3d-resnets/docker-entrypoint.sh"]
