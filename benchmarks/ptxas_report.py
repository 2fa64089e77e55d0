#!/usr/bin/env python3
"""Registers, spills and shared memory of every CUDA kernel, as ptxas reports them.

    python3 benchmarks/ptxas_report.py [--output benchmarks/results/ptxas.md]

Compiles the GPU benchmarks and the search for real architectures with -Xptxas -v; no GPU is needed.
One row for every kernel and element type: the worst of its instantiations, and of which there are
several, how many. Exit status 1 if a kernel in float spills.
"""

import argparse
import collections
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = ["benchmarks/gpu/steps.cu", "tests/cuda/similarity.cu"]
ARCHITECTURES = ["sm_80", "sm_90"]
# As CMakeLists.txt gives them.
FLAGS = ["-std=c++20", "--expt-relaxed-constexpr", "--diag-suppress=554", "-O3", "-DNDEBUG",
         "-Iinclude", "-Itests", "-Itests/cuda"]

Usage = collections.namedtuple("Usage", "registers spills stack shared")


def compile_for(nvcc, source, architecture):
    """What ptxas says, with names of C++."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, f"-arch={architecture}", "-cubin", "-Xptxas", "-v", source, "-o",
                   os.path.join(folder, "kernels.cubin")]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    return subprocess.run(["c++filt"], input=run.stdout + run.stderr, capture_output=True,
                          text=True, check=True).stdout


def row_of(name):
    """void kindred::cuda::kernel<..., float>(...) -> ("kernel", "float")."""
    head = name.split("(", 1)[0].split("<", 1)[0]
    scalar = "double" if re.search(r"\bdouble\b", name.split(">(", 1)[0]) else "float"
    kernel = head.rsplit("::", 1)[-1].split()[-1]
    if kernel in ("channel_sums_kernel", "channel_finish_kernel", "sum_partials_kernel"):
        # Their partial sums are in double in either case; what they work on is a functor's T.
        scalar = "double" if re.search(r"<double>|, double>", name) else "float"
    return kernel, scalar


def read(report):
    """{(kernel, scalar): [Usage]} of one report."""
    kernels = collections.defaultdict(list)
    name, frame = None, (0, 0)
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(.*)' for", line):
            name = match[1]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes",
                                line):
            frame = int(match[1]), int(match[2]) + int(match[3])
        elif (match := re.search(r"Used (\d+) registers", line)) and name:
            shared = re.search(r"(\d+) bytes smem", line)
            kernels[row_of(name)].append(
                Usage(int(match[1]), frame[1], frame[0], int(shared[1]) if shared else 0))
            name, frame = None, (0, 0)
    return kernels


def worst(usages):
    return Usage(*(max(values) for values in zip(*usages)))


def table(per_architecture):
    keys = sorted({key for kernels in per_architecture.values() for key in kernels})
    lines = ["| kernel | T | instances | " + " | ".join(
        f"{a}: registers | spill bytes | stack bytes | shared bytes" for a in per_architecture)
        + " |", "|---|---|---|" + "---|" * 4 * len(per_architecture)]
    for kernel, scalar in keys:
        cells, count = [], 0
        for kernels in per_architecture.values():
            usages = kernels.get((kernel, scalar), [])
            count = max(count, len(usages))
            cells += [str(v) for v in worst(usages)] if usages else [""] * 4
        lines.append(f"| {kernel} | {scalar} | {count} | {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="a file for the table, besides the terminal")
    options = parser.parse_args()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not os.path.exists(nvcc):
        sys.exit("nvcc was not found: this needs the CUDA toolkit")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    per_architecture = {}
    for architecture in ARCHITECTURES:
        kernels = collections.defaultdict(list)
        for source in SOURCES:
            for key, usages in read(compile_for(nvcc, source, architecture)).items():
                kernels[key] += usages
        per_architecture[architecture] = kernels
    spilling = sorted({key[0] for kernels in per_architecture.values()
                       for key, usages in kernels.items()
                       if key[1] == "float" and worst(usages).spills > 0})
    release = re.search(r"release [\d.]+, V([\d.]+)", version.stdout)
    lines = ["# What ptxas makes of the CUDA kernels", "",
             f"`python3 benchmarks/ptxas_report.py`, {datetime.date.today()}, nvcc "
             f"{release[1] if release else 'of unknown version'}, of "
             + " and ".join(f"`{s}`" for s in SOURCES) + ", without cuBLAS. The worst of all "
             "instances of a kernel; the limits are 255 registers a thread and 49,152 bytes of "
             "shared memory a block.", "",
             f"Kernels in float that spill: {', '.join(spilling) if spilling else 'none'}.", "",
             *table(per_architecture)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
