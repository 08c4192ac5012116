# ssl_lab with all extras, in the versions of requirements.lock.
#   docker build --tag ssl_lab .
#   docker run --rm --volume "$PWD:/work" ssl_lab pretrain experiment=simclr_digits
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/ssl_lab \
    && pip install --no-cache-dir build uv \
    && python -m build --wheel --outdir /dist \
    && uv pip install --no-cache --python /opt/ssl_lab/bin/python -r requirements.lock \
    && uv pip install --no-cache --python /opt/ssl_lab/bin/python --no-deps /dist/*.whl

FROM python:3.11-slim
COPY --from=build /opt/ssl_lab /opt/ssl_lab
RUN useradd --create-home --uid 1000 ssl_lab && mkdir /work && chown ssl_lab /work
USER ssl_lab
ENV PATH=/opt/ssl_lab/bin:$PATH
WORKDIR /work
ENTRYPOINT ["ssl-lab"]
CMD ["list"]
