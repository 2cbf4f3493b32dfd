#!/usr/bin/env bash
# Tokens a second beside llama.cpp: a llama of Q8_0 with random weights, 39.8 M of them multiplied a token, and the record's
# shape (39.6 M), in turns on the same threads. Ratios mean nothing unless the machine has nothing else to do.
#   benches/llama.sh FOLDER [ROUNDS]
# FOLDER keeps what is needed. PYTHON names a Python that has `llama_cpp`, `gguf` and `numpy`; without it they are installed
# into FOLDER, where pip builds llama.cpp for some minutes and needs a C++ compiler.
set -euo pipefail
mkdir -p "${1:?expected a folder to work in}"
folder=$(cd "$1" && pwd)
rounds=${2:-3}
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
  PYTHON=$folder/venv/bin/python
  if [ ! -x "$PYTHON" ]; then
    python3 -m venv "$folder/venv"
  fi
  "$PYTHON" -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36 gguf==0.19.0
fi
[ -e "$folder/llama.gguf" ] || "$PYTHON" benches/llama.py make "$folder/llama.gguf"

cargo bench --workspace --bench devices --no-run
: > "$folder/ours"
: > "$folder/theirs"
for _ in $(seq "$rounds"); do
  cargo bench --quiet --workspace --bench devices -- record cpu | tee -a "$folder/ours"
  "$PYTHON" benches/llama.py time "$folder/llama.gguf" | tee -a "$folder/theirs"
done
"$PYTHON" benches/llama.py compare "$folder/ours" "$folder/theirs"
