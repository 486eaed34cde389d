# docker build -t swirl-lightning .   (for a CPU: --build-arg TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu")
FROM python:3.11-slim
ARG TORCH_ARGS=""
WORKDIR /opt/swirl-lightning
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY callbacks callbacks
RUN pip install --no-cache-dir ${TORCH_ARGS} -c constraints.txt torch \
 && pip install --no-cache-dir -c constraints.txt '.[minigrid,grammar,plot]'
WORKDIR /work
ENTRYPOINT ["swirl"]
