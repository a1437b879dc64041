#!/bin/sh
# PyTorch and the libraries of fine-tuning into /opt/gpurig/finetune, besides the packages that the image has already.
# usage: TORCH_INDEX_URL=[…] finetune.sh JOB-LOCK FINETUNE-LOCK
#
# The package index has PyTorch for one CUDA version; builds for the CPU, for ROCm and for other CUDA versions are on
# indexes of their own, as PyTorch==VERSION+cpu and the like. Their files have other hashes, so with TORCH_INDEX_URL the
# version of PyTorch is what is locked, and PyTorch's own requirements pin the GPU libraries beside it. The rest is
# locked by hash in both cases.
set -eu
export PIP_CONFIG_FILE=/opt/build/pip.conf
target=/opt/gpurig/finetune

install() {
    report=$1
    shift
    /opt/build/bin/pip --python /opt/gpurig/bin/python install --no-compile --only-binary :all: --target "$target" \
        --report "/opt/build/reports/$report.json" "$@"
}

# The entries of a lock file whose name matches, or does not.
entries() { awk -v names="^($1)==" -v wanted="$2" '/^[a-z0-9]/ { mine = ($0 ~ names) } mine == wanted' "$3"; }

gpu='torch|(pytorch-)?triton(-[a-z]+)?|nvidia-[a-z0-9-]+|cuda-[a-z]+'
here=$(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' "$1" | paste -sd '|' -)
entries "$gpu" 1 "$2" > /lock/torch.lock
entries "$gpu|$here" 0 "$2" > /lock/finetune-rest.lock
if [ -z "${TORCH_INDEX_URL:-}" ]; then
    install torch -r /lock/torch.lock
else
    version=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' /lock/torch.lock)
    export PIP_REQUIRE_HASHES=0
    install torch --index-url "$TORCH_INDEX_URL" "torch==$version"
    # What PyTorch pins and no lock has: the GPU's libraries, and its compiler. They come with what they need: cuda-toolkit
    # is empty, and pins the libraries by its extras.
    pinned=$(/opt/build/bin/python - "$target" "$gpu" <<'PYTHON'
import re
import sys
from importlib import metadata
from packaging.requirements import Requirement

[torch] = metadata.distributions(name="torch", path=[sys.argv[1]])
for one in map(Requirement, torch.requires or ()):
    if re.fullmatch(sys.argv[2], one.name) and (one.marker is None or one.marker.evaluate({"extra": ""})):
        one.marker = None
        print(str(one).replace(" ", ""))
PYTHON
)
    set -f
    # shellcheck disable=SC2086
    if [ -n "$pinned" ]; then PIP_NO_DEPS=0 install torch-libraries --index-url "$TORCH_INDEX_URL" $pinned; fi
    set +f
    unset PIP_REQUIRE_HASHES
fi
install finetune -r /lock/finetune-rest.lock
cd "$target"
rm -rf bin
find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.a' \) -delete
# One copy of a library that llama.cpp's CUDA brings as well.
for library in nvidia/cu13/lib/*.so.*; do
    ours=/opt/gpurig/cuda/${library##*/}
    if cmp -s "$library" "/opt/cuda-libraries/${library##*/}"; then ln -sf "$ours" "$library"; fi
done
# Some packages carry templates that are no Python: what does not compile stays as it is.
/opt/gpurig/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash . || true
find . -exec touch -h -d @0 {} +
