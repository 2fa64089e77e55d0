#!/usr/bin/env python3
"""Runs a benchmark program and prints its results as Markdown, with the command and the machine.

    python benchmarks/report.py "Machine's limits" build/benchmarks/roofline \\
        --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true

A program of Google Benchmark becomes a table of medians (lowest..highest); one that prints Markdown
itself (gemm, layers) is passed through.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# Fields of a row that Google Benchmark writes itself; all others are counters of the benchmark.
OWN_FIELDS = {"name", "family_index", "per_family_instance_index", "run_name", "run_type",
              "repetitions", "repetition_index", "threads", "iterations", "real_time", "cpu_time",
              "time_unit", "label", "error_occurred", "error_message"}


def is_google_benchmark(program):
    """Such a program lists its tests; another refuses the option."""
    return subprocess.run([program, "--benchmark_list_tests=true"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def google_rows(command):
    """The measurements of a program of Google Benchmark, without its aggregates."""
    text = subprocess.run(command + ["--benchmark_format=json"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    rows = [r for r in json.loads(text)["benchmarks"] if r.get("run_type") != "aggregate"]
    failed = [r["name"] for r in rows if r.get("error_occurred")]
    if failed or not rows:
        raise SystemExit(f"{' '.join(command)}: {failed or 'nothing was measured'}")
    # Not in the order of random interleaving.
    return sorted(rows, key=lambda r: (r["family_index"], r["per_family_instance_index"]))


def seconds(row):
    return row["real_time"] * TIME_UNITS[row["time_unit"]]


def short_name(name):
    """Without what Google Benchmark adds: /min_time:0.2/real_time, /iterations:5/manual_time."""
    return name.split("/min_time:")[0].split("/iterations:")[0].removesuffix("/real_time")


def three_digits(value):
    """1234, 123, 12.3, 1.23, 0.123"""
    digits = max(0, 3 - len(str(int(abs(value))))) if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def spread(values):
    return (f"{three_digits(statistics.median(values))} "
            f"({three_digits(min(values))}..{three_digits(max(values))})")


def print_table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def google_table(rows):
    by_name = {}
    for row in rows:
        by_name.setdefault(short_name(row["name"]), []).append(row)
    counters = list(dict.fromkeys(k for row in rows for k in row if k not in OWN_FIELDS))
    cells = []
    for name, same in by_name.items():
        label = same[0].get("label")
        cells.append([f"{name} ({label})" if label else name,
                      spread([1e3 * seconds(r) for r in same])] +
                     [three_digits(statistics.median(r[c] for r in same)) if c in same[0] else ""
                      for c in counters])
    print_table(["benchmark", "ms"] + counters, cells)
    print(f"\nMedians of {len(next(iter(by_name.values())))} repetitions (lowest..highest).")


def cpu_model():
    for line in subprocess.check_output(["lscpu"], text=True).splitlines():
        if line.startswith("Model name:"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def print_circumstances(command, versions=()):
    """Machine, date, versions and command, as the last lines of every table."""
    version = subprocess.run(["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE,
                             text=True, check=False).stdout.strip()
    facts = [f"{cpu_model()}, {os.cpu_count()} cores", datetime.date.today().isoformat(),
             f"kindred {version or 'of no repository'}", *versions,
             f"{platform.system()} {platform.release()}"]
    print(f"\n{'; '.join(facts)}.\n\n```sh\n{' '.join(command)}\n```")


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    title, *command = sys.argv[1:]
    load = os.getloadavg()[0]
    print(f"# {title}\n", flush=True)
    if is_google_benchmark(command[0]):
        google_table(google_rows(command))
    else:
        subprocess.run(command, check=True)
    print_circumstances(command, [f"load average before {load:.2f}"])


if __name__ == "__main__":
    main()
