"""The parts of ROCm that a job image takes over: the libraries llama.cpp needs, with its own targets' kernels only.

usage: rocm.py check TARGETS RUNS_AS BASE_LIBC   before an hour is spent on compiling: can this ROCm do it, and will
                                                 the base image run it? BASE_LIBC: file with its C library's version
       rocm.py collect TARGETS LIBRARIES OUT     LIBRARIES: the folder of llama.cpp's libraries; OUT: a new file tree

TARGETS as CMake writes them: gfx1030;gfx1100. It runs in the toolkit image, so it imports nothing but Python's own.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import subprocess  # noqa: TID251 - gpurig is not installed where this runs
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# The base image's: the C library, which cannot be another, and the compiler's, which every distribution has.
_THE_BASES = re.compile(r"(ld-linux|linux-vdso|lib(c|m|dl|pthread|rt|util|resolv|stdc\+\+|gcc_s)\.so)")
# HIP loads it by name when it starts, so nothing names it as needed.
_LOADED_LATER = re.compile(r"libamd_comgr\.so\.\d+")
# The first version of HIP that is not told to take a card for another.
_NAMES_ALL = 7
# Folders of kernels beside their library, AMD's "rocblas/library", Debian's "rocblas/<version>/library".
_KERNELS = ("rocblas", "hipblaslt")
# Where the final stage has it all.
_PLACE = "opt/rocm/lib"
# How the device's library names an integrated product; without it each start writes a warning.
_PRODUCT_NAMES = ("opt/amdgpu/share/libdrm/amdgpu.ids", "usr/share/libdrm/amdgpu.ids")

# https://clang.llvm.org/docs/ClangOffloadBundler.html, "Bundled Binary File Layout".
_MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
_TARGET = re.compile(r"gfx[0-9]+[a-f]?")


def of_targets(name: str, targets: Iterable[str]) -> bool:
    """Whether a file or a bundle's entry of that name is for one of the targets, or for all."""
    named = _TARGET.findall(name)
    # gfx11-generic is for every card of its family.
    return not named or "-generic" in name or any(target in named for target in targets)


def code_objects(data: bytearray | mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """The code objects in a library: the target as the bundle names it, where it starts, its size in bytes.

    Bundles that are compressed are passed over.

    Raises:
        ValueError: a bundle that points outside of its section.
    """
    begin, end = _section(data, b".hip_fatbin")
    start = data.find(_MAGIC, begin, end)
    while start >= 0:
        place = start + len(_MAGIC)
        try:
            (count,) = struct.unpack_from("<Q", data, place)
            place += 8
            for _ in range(count):
                offset, size, length = struct.unpack_from("<QQQ", data, place)
                place += 24 + length
                if place > end or start + offset + size > end:
                    raise ValueError(f"a code object of the bundle at byte {start} lies outside of its section")
                yield bytes(data[place - length : place]).decode("ascii"), start + offset, size
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"no offload bundle at byte {start}") from error
        start = data.find(_MAGIC, place, end)


def _section(data: bytearray | mmap.mmap, name: bytes) -> tuple[int, int]:
    """Where a section of a 64-bit ELF file starts and ends; (0, 0) where there is none (elf(5))."""
    if data[:5] != b"\x7fELF\x02":
        return 0, 0
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    (strings,) = struct.unpack_from("<Q", data, table + names * size + 0x18)
    for index in range(count):
        header = table + index * size
        (label,) = struct.unpack_from("<I", data, header)
        offset, length = struct.unpack_from("<QQ", data, header + 0x18)
        if data[strings + label : strings + label + len(name) + 1] == name + b"\0":
            return offset, offset + length
    return 0, 0


def blank_others(data: bytearray | mmap.mmap, targets: Iterable[str]) -> int:
    """Write zeros over the code objects of other targets; how many bytes that were.

    They keep their place, so nothing else of the library changes, and a compressed layer holds nothing of them.

    Raises:
        ValueError: there are code objects, but not for each of these targets.
    """
    wanted = set(targets)
    found = list(code_objects(data))
    lacking = wanted - {target for name, _, size in found if size for target in _TARGET.findall(name)}
    if found and lacking:
        raise ValueError(f"no code objects for {', '.join(sorted(lacking))}")
    blanked = 0
    for name, start, size in found:
        if not of_targets(name, wanted):
            data[start : start + size] = bytes(size)
            blanked += size
    return blanked


def rocm_libraries() -> Path:
    """The folder of ROCm's libraries."""
    root = Path(_output("hipconfig", "--rocmpath").strip() or "/opt/rocm")
    for folder in (root / "lib", *sorted(root.glob("lib/*-linux-gnu"))):
        if list(folder.glob("librocblas.so.*")):
            return folder
    raise SystemExit(f"gpurig: error: there is no rocBLAS below {root}; use a toolkit image that has it")


def check(targets: list[str], runs_as: str, base_libc: str) -> None:
    """End with a message where no image for these targets can come of this ROCm and that base image."""
    own_libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    if _version(base_libc) < _version(own_libc):
        raise SystemExit(
            f"gpurig: error: the base image has {base_libc}, this toolkit image {own_libc}: what is compiled here "
            "would not load there; use a base image of this one's distribution"
        )
    version = _output("hipconfig", "--version").strip()
    major = int(version.partition(".")[0])
    has = {
        target
        for path in (rocm_libraries() / "rocblas").rglob("TensileLibrary_lazy_*.dat*")
        for target in _TARGET.findall(path.name)
    }
    lacking = sorted(set(targets) - has)
    if lacking:
        raise SystemExit(
            f"gpurig: error: rocBLAS in this toolkit image (HIP {version}) has no kernels for {', '.join(lacking)}; "
            f"it has them for {', '.join(sorted(has))}"
        )
    if runs_as != "itself" and major >= _NAMES_ALL:
        raise SystemExit(
            f"gpurig: error: HIP {version} knows each target by its own name and is not told to take it for {runs_as}; "
            "use a toolkit image with ROCm 6"
        )
    _say(f"HIP {version}, rocBLAS with kernels for {', '.join(targets)}")


def collect(targets: list[str], llama: Path, out: Path) -> None:
    """Copy what the libraries in `llama` need, and the targets' kernels, below `out`."""
    source, place = rocm_libraries(), out / _PLACE
    place.mkdir(parents=True)
    later = [path for path in source.iterdir() if _LOADED_LATER.fullmatch(path.name)]
    if not later:
        raise SystemExit(f"gpurig: error: there is no libamd_comgr in {source}; use a toolkit image that has it")
    roots = [*llama.glob("*.so*"), *later]
    owners: list[Path] = []
    for name, path in sorted(_needed(roots, source).items()):
        if path.parent == llama:
            continue
        shutil.copyfile(path, place / name)
        _say(f"{name}: {_slim(place / name, targets)}")
        owners.append(path)
    for folder in _KERNELS:
        for path in (source / folder).rglob("*"):
            relative = path.relative_to(source)
            if path.is_file() and of_targets(str(relative), targets):
                (place / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / relative)
    for names in _PRODUCT_NAMES:
        if (Path("/") / names).is_file():
            (out / names).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/") / names, out / names)
    _note_packages(owners, out / "opt/rocm")


def _slim(path: Path, targets: list[str]) -> str:
    """Blank other targets' code in a copied library; what became of it."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        try:
            return f"{len(data)} bytes, {blank_others(data, targets)} of them other targets' code, blanked"
        except ValueError as error:
            if path.name.startswith("librocblas."):
                raise SystemExit(f"gpurig: error: {path.name}: {error}") from error
            # hipBLASLt is for some cards only; rocBLAS does without it on the others.
            return f"{len(data)} bytes as they are: {error}"


def _needed(roots: list[Path], source: Path) -> dict[str, Path]:
    """What the loader takes for these libraries, by the name it is asked for; the base image's own left out."""
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{roots[0].parent}:{source}"}
    found: dict[str, Path] = {}
    for root in roots:
        found.setdefault(root.name, root)
        for line in _output("ldd", str(root), environment=environment).splitlines():
            name, arrow, place = line.strip().partition(" => ")
            if not arrow or _THE_BASES.match(name):
                continue
            if not place.startswith("/"):
                raise SystemExit(f"gpurig: error: {root} needs {name}, which this toolkit image lacks")
            found[name] = Path(place.rpartition(" (")[0])
    return found


def _note_packages(files: list[Path], out: Path) -> None:
    """What dpkg knows of the packages that the files are from, for the bill of materials, and their licenses."""
    names: set[str] = set()
    for path in {file.resolve() for file in files}:
        # A merged /usr: the package may have it under /lib.
        for known in (str(path), str(path).removeprefix("/usr")):
            owner = _output("dpkg", "-S", known, may_fail=True).partition(": ")[0].split(",")[0]
            if owner:
                names.add(owner)
                break
    (out / "packages").write_text(_output("dpkg-query", "--status", *sorted(names)))
    for name in names:
        package = name.partition(":")[0]
        for text in (Path("/usr/share/doc") / package / "copyright", *Path("/opt/rocm/share/doc").glob(f"{package}/*")):
            if text.is_file():
                (out / "doc" / package).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(text, out / "doc" / package / text.name)


def _output(*command: str, environment: dict[str, str] | None = None, may_fail: bool = False) -> str:
    return subprocess.run(command, check=not may_fail, stdout=subprocess.PIPE, text=True, env=environment).stdout


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", named, runs_as, libc]:
            check(named.split(";"), runs_as, Path(libc).read_text().strip())
        case ["collect", named, folder, out]:
            collect(named.split(";"), Path(folder), Path(out))
        case _:
            raise SystemExit(__doc__)
