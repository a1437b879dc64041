#!/bin/sh
# Install the locked packages besides llama-cpp-python into /opt/gpurig, without what no job reads.
# usage: packages.sh LOCK
set -eu
mkdir -p /opt/build/reports
PIP_CONFIG_FILE=/opt/build/pip.conf /opt/build/bin/pip --python /opt/gpurig/bin/python install --no-compile \
    --only-binary :all: --report /opt/build/reports/packages.json -r "$1"
rm -rf /opt/gpurig/include
cd /opt/gpurig/lib/python3*/site-packages
# The second is there in the target `finetune` alone; Python passes over a folder that is not.
printf '%s\n' /opt/gpurig/app /opt/gpurig/finetune > gpurig.pth
find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.a' -o -name '*.h' \) -delete
# The libraries of the GPU's vendor, where there are any, beside llama.cpp's: there its run path looks.
for library in /opt/cuda-libraries/*.so.*; do
    if [ -e "$library" ]; then ln -s "/opt/gpurig/cuda/${library##*/}" llama_cpp/lib/; fi
done
# A job's user cannot write here, so what is not compiled now would be compiled again in every job.
/opt/gpurig/bin/python -m compileall -q --invalidation-mode unchecked-hash .
# Where the image's models go: a folder of their own, so that neither models nor code change the other's layer.
mkdir -p /opt/gpurig/models /opt/gpurig/app
# No times: equal content is an equal layer, which a registry has already.
find /opt/gpurig -exec touch -h -d @0 {} +
