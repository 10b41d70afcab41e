#!/usr/bin/env bash
# What only a GPU shows, in at most 8 minutes; one JSON. Without a GPU: what it would do, and exit code 0.
#     bash benchmarks/on_gpu.sh [--folder DIR]
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[ -x "$python" ] || python=python3
exec "$python" -m benchmarks.on_gpu "$@"
