# The image that serves a model: the wheel, torch for CPUs, and nothing that trains on a cluster needs besides.
# Its base is given by digest, since a tag can be moved; a mirror of packages by --build-arg TORCH=torch and PIP_INDEX_URL:
#   .venv/bin/pip wheel --no-deps --no-build-isolation . --wheel-dir dist
#   DIGEST=$(docker buildx imagetools inspect python:3.11-slim --format '{{.Manifest.Digest}}')
#   docker build -f jobs/cluster/serve.Dockerfile -t REGISTRY/seral-serve:0.1 --build-arg BASE=python@$DIGEST .
#   docker run --shm-size=2g --publish 127.0.0.1:8000:8000 --volume $PWD/models/emodb:/model:ro \
#     --volume $PWD/token:/run/secrets/token:ro REGISTRY/seral-serve:0.1
ARG BASE
FROM ${BASE}
ARG TORCH="torch --index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple"
COPY constraints.txt /opt/seral/
RUN pip install --no-cache-dir --constraint /opt/seral/constraints.txt ${TORCH}
COPY dist/seral-*.whl /opt/seral/
RUN pip install --no-cache-dir --constraint /opt/seral/constraints.txt "$(ls /opt/seral/seral-*.whl)[serve,codecs]" \
 && useradd --uid 1000 --gid users --create-home serve
ENV SERAL_SERVE_TOKEN_FILE=/run/secrets/token
# By number, so that Kubernetes can tell that it is not root.
USER 1000:100
WORKDIR /home/serve
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=15s --start-period=120s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=12)"]
ENTRYPOINT ["seral", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
