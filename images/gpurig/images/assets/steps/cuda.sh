#!/bin/sh
# The CUDA toolkit as one folder that nvcc and CMake know their way in, /opt/cuda: another image's, where its files are
# in /opt/vendor, else the vendor's Python packages; with them Debian's nvcc, where a lock file names that.
# usage: cuda.sh FOLDER   (of the lock files cudaN.lock and cudaN-nvcc.lock)
set -eu
if [ -x /opt/vendor/bin/nvcc ]; then
    mv /opt/vendor /opt/cuda
else
    mkdir -p /opt/build/reports /opt/cuda
    for lock in "$1"/cuda??-nvcc.lock; do
        if [ -e "$lock" ]; then sh "${0%/*}/debian-nvcc.sh" "$lock"; fi
    done
    PIP_CONFIG_FILE=/opt/build/pip.conf /opt/build/bin/pip install --quiet --no-compile --only-binary :all: \
        --report /opt/build/reports/cuda.json --target /opt/cuda-packages -r "$1"/cuda??.lock
    # One folder for all of CUDA 13, one a package for CUDA 12.
    for part in /opt/cuda-packages/nvidia/*/; do cp -alf "$part." /opt/cuda/; done
    rm -rf /opt/cuda-packages
    chmod -R a+rx /opt/cuda/bin /opt/cuda/nvvm/bin
    cd /opt/cuda
    ln -s lib lib64
    for library in lib/*.so.*; do
        ln -s "${library#lib/}" "${library%%.so.*}.so"
    done
    # From glibc 2.41 on math.h declares some functions of CUDA's too, as such that throw nothing: then so must CUDA.
    printf '#include <math.h>\n' | g++ -E -P -x c++ - > /tmp/math.h
    for name in sinpi sinpif cospi cospif rsqrt rsqrtf; do
        if grep -q "\b$name (" /tmp/math.h; then
            sed -i -E "/^extern/s/(\b$name\((float|double) x\));/\1 noexcept (true);/" include/crt/math_functions.h
        fi
    done
    rm /tmp/math.h
fi
cd /opt/cuda
# nvcc links both unless it is told otherwise, as when CMake tries it. llama.cpp takes the shared library of the one, and
# nothing of the other, which is for kernels that start kernels; the packages of CUDA 12 have neither.
if [ ! -e lib64/libcudart_static.a ]; then echo 'INPUT(-lcudart)' > lib64/libcudart_static.a; fi
if [ ! -e lib64/libcudadevrt.a ]; then
    gcc -x c -c -o /tmp/nothing.o /dev/null
    ar rc lib64/libcudadevrt.a /tmp/nothing.o
    rm /tmp/nothing.o
fi
# The driver's library comes from the host when a container starts, and the packages have no stub of it. One is made
# from the declarations in cuda.h: linked against it, llama.cpp can use the driver's virtual memory for its pool.
if [ ! -e lib64/stubs/libcuda.so ]; then
    mkdir -p lib64/stubs
    printf '#include <cuda.h>\n' | gcc -E -P -Iinclude - | grep -oE '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' | tr -d ' (' \
        | sort -u | awk '{ print "int " $1 "(void) { return 34; }" }' > /tmp/stub.c
    grep -q 'cuMemAddressReserve(' /tmp/stub.c
    gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o lib64/stubs/libcuda.so /tmp/stub.c
    rm /tmp/stub.c
fi
# What the final stage takes, under the names that the loader asks for.
mkdir /opt/cuda-libraries
for library in lib64/libcudart.so.[0-9]* lib64/libcublas.so.[0-9]* lib64/libcublasLt.so.[0-9]*; do
    case "${library#*.so.}" in
        *.*) ;;
        *) cp -L "$library" /opt/cuda-libraries/ ;;
    esac
done
[ "$(ls /opt/cuda-libraries | wc -l)" -eq 3 ]
# No times: equal content is an equal layer, which a registry has already.
find /opt/cuda-libraries -exec touch -h -d @0 {} +
