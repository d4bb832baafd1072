# scorefield on processors: docker build -f docker/cpu.Dockerfile -t scorefield .
#     docker run --rm -v "$PWD/runs:/work/runs" scorefield demo
ARG BASE=docker.io/library/python:3.12-slim-bookworm
FROM ${BASE} AS build
# What changes seldom comes first: the dependencies are one layer, our own code another.
RUN python3 -m venv /opt/scorefield
ENV PATH=/opt/scorefield/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=""
WORKDIR /source
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = [x for x in '${EXTRAS}'.split(',') if x]; \
print(*p['dependencies'], *(d for x in e for d in p['optional-dependencies'][x]), sep='\n')" > needed.txt \
    && pip install --extra-index-url ${TORCH_INDEX} -c constraints.txt -r needed.txt
COPY README.md LICENSE ./
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps .

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 scorefield && mkdir -p /work/runs && chown -R scorefield /work
COPY --from=build /opt/scorefield /opt/scorefield
ENV PATH=/opt/scorefield/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
USER scorefield
WORKDIR /work
VOLUME /work/runs
ENTRYPOINT ["tini", "--", "scorefield"]
CMD ["--help"]
