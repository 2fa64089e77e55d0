#!/usr/bin/env python3
"""The same work in PyTorch and in kindred, in one run: interleaved repeats, medians, one table.

    python benchmarks/compare_pytorch.py --kindred build/benchmarks/pplcnet \\
                                         --kindred build/benchmarks/margin_softmax

Cases, named as the benchmark programs name them:
    Inference/SCALE/BATCH         PPLCNet features [BATCH,1280] of 224x224 images, evaluation mode
    TrainStep/SCALE/BATCH         PPLCNet, FC 1280->512, ArcMargin over 1000 classes, CELoss:
                                  forward, backward, SGD with momentum and weight decay
    MarginStep/BATCH/D/C          ArcMargin + CELoss: loss, gradients of features and weight

PyTorch runs each case in the ways a user has: eager (channels_last), torch.compile, and for
inference batch norm folded by torch.jit.freeze + optimize_for_inference ("jit"). Every variant runs
in a process of its own (pytorch_case.py), so that the peak resident memory is its own and no
variant warms another's caches; this program stays small, because a child inherits its parent's
peak. kindred's programs are asked for the same case by --benchmark_filter, once per repeat, and
report the mean of their own iterations. Without --kindred only PyTorch is timed.

Run it on an idle machine: two threads that meet at a barrier wait for the slower one, so one other
busy process can make a step with many small operations a hundred times slower. The load average at
the start is printed under the table.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

CASE_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pytorch_case.py")
DEFAULT_CASES = ["Inference/x1_0/1", "Inference/x1_0/32", "Inference/x2_5/1", "Inference/x2_5/32",
                 "TrainStep/x1_0/1", "TrainStep/x1_0/32", "TrainStep/x2_5/1", "TrainStep/x2_5/32",
                 "MarginStep/64/512/185341"]
VARIANTS = {"Inference": ["eager", "jit", "compile"], "TrainStep": ["eager", "compile"],
            "MarginStep": ["eager", "compile"]}


def run_torch(case, variant, options):
    command = [sys.executable, CASE_PROGRAM, case, variant, "--threads", str(options.threads),
               "--seconds", str(options.seconds)]
    return json.loads(output_of(command, options)[0].splitlines()[-1])


def output_of(command, options):
    """Standard output, and the peak resident memory in MiB, of a child that must succeed."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        text = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {child.returncode}")
    return text, usage.ru_maxrss / 1024


def kindred_cases(options):
    """Which program has which case. A name may go on after the case: /real_time, /threads:1."""
    found = {}
    for program in options.kindred:
        for name in output_of([program, "--benchmark_list_tests=true"], options)[0].split():
            found[name] = program
    return found


def kindred_name(case, available):
    names = [n for n in available if n == case or n.startswith(case + "/")]
    if len(names) > 1:
        raise SystemExit(f"{case} is ambiguous: {names}")
    return names[0] if names else None


def run_kindred(name, program, options):
    text, peak = output_of([program, "--benchmark_filter=^" + name + "$",
                            "--benchmark_format=json"], options)
    rows = [r for r in json.loads(text)["benchmarks"] if r.get("run_type") != "aggregate"]
    if not rows or any(r.get("error_occurred") for r in rows):
        raise SystemExit(f"{program} reported no time for {name}")
    unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
    times = [r["real_time"] * unit[r["time_unit"]] for r in rows]
    return {"seconds": statistics.median(times), "peak_mib": peak}


def measure(case, available, options):
    """All variants in turn, repeats times; each repeat starts with another one."""
    kind = case.split("/")[0]
    name = kindred_name(case, available)
    variants = [v for v in VARIANTS[kind] if v not in options.skip] + (["kindred"] if name else [])
    results = {variant: [] for variant in variants}
    for repeat in range(options.repeats):
        turn = variants[repeat % len(variants):] + variants[:repeat % len(variants)]
        for variant in turn:
            result = (run_kindred(name, available[name], options) if variant == "kindred"
                      else run_torch(case, variant, options))
            results[variant].append(result)
            print(f"  {case} {variant}: {1e3 * result['seconds']:.2f} ms, "
                  f"peak {result['peak_mib']:.0f} MiB", file=sys.stderr, flush=True)
    return results


def cpu_model():
    for line in subprocess.check_output(["lscpu"], text=True).splitlines():
        if line.startswith("Model name:"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def table_row(case, results):
    def median(variant, key):
        return statistics.median(r[key] for r in results[variant])

    def cell(variant):
        if variant not in results:
            return "-"
        times = [1e3 * r["seconds"] for r in results[variant]]
        return f"{statistics.median(times):.2f} ({min(times):.2f}..{max(times):.2f})"

    best = min((v for v in results if v != "kindred"), key=lambda v: median(v, "seconds"))
    ratio, memory = "-", "-"
    if "kindred" in results:
        ratio = f"{median(best, 'seconds') / median('kindred', 'seconds'):.2f} x"
        memory = f"{median('kindred', 'peak_mib'):.0f}"
    batch = int(case.split("/")[1 if case.startswith("Margin") else 2])
    rate = f"{batch / median(best, 'seconds'):.0f}"
    return [case, cell("eager"), cell("compile"), cell("jit"), rate, cell("kindred"), ratio,
            f"{median(best, 'peak_mib'):.0f}", memory]


def print_table(measured, options, load):
    header = ["case", "eager, ms", "compile, ms", "jit, ms", "best PyTorch, images/s",
              "kindred, ms", "kindred is faster by", "PyTorch peak MiB", "kindred peak MiB"]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" + "---:|" * (len(header) - 1))
    for case, results in measured.items():
        print("| " + " | ".join(table_row(case, results)) + " |")
    print()
    print(f"Median of {options.repeats} interleaved runs (lowest..highest), each the median over "
          f"at least {options.seconds} s; {options.threads} threads; the peak is that of the whole "
          f"process, of the fastest PyTorch variant.")
    any_run = next(iter(measured.values()))["eager"][0]
    print(f"{cpu_model()}, {datetime.date.today().isoformat()}; PyTorch {any_run['torch']} "
          f"(oneDNN {'on' if any_run['onednn'] else 'off'}), Python "
          f"{platform.python_version()}, {platform.system()} {platform.machine()}; load average "
          f"at the start {load:.2f}.")
    print(f"`python {' '.join(sys.argv)}`")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kindred", action="append", default=[], metavar="PROGRAM",
                        help="a Google Benchmark program of kindred; may be given several times")
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing per PyTorch run")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--skip", nargs="*", default=[], choices=["jit", "compile"])
    parser.add_argument("--json", metavar="FILE", help="also write every single measurement")
    return parser.parse_args()


def main():
    options = parse()
    load = os.getloadavg()[0]
    available = kindred_cases(options)
    if options.kindred:
        missing = [c for c in options.cases if kindred_name(c, available) is None]
        if missing:
            print(f"no kindred program has: {', '.join(missing)}", file=sys.stderr)
    measured = {case: measure(case, available, options) for case in options.cases}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(measured, out, indent=1)
    print_table(measured, options, load)


if __name__ == "__main__":
    main()
