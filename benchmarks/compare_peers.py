#!/usr/bin/env python3
"""The same work in kindred and in every library that a user would take instead, in one run.

    python benchmarks/compare_peers.py --programs build/benchmarks --paddle-python OTHER/bin/python

Cases:
    Inference/SCALE/BATCH       PPLCNet and FC 1280->512: features of 224x224 images
    TrainStep/SCALE/BATCH       the same, ArcMargin over 1000 classes, CELoss: forward, backward,
                                SGD with momentum and weight decay
    MarginStep/BATCH/D/C        ArcMargin + CELoss: loss, gradients of features and weight
    TopK/IMAGES/D/K             the K most similar of all features, for each of them
    InferenceBF16, TrainStepBF16    in BF16, as each of them has it: kindred Storage::bf16, PyTorch
                                autocast, OpenVINO its precision hint

Everybody has the same network, weights and images: kindred writes them, the peers load every tensor
by name and shape, and the features of Inference are compared with kindred's in float32. All others
than the BF16 cases compute in float32.

Every peer holds a case in a process of its own (peers/), so that its peak of resident memory is its
own. In every round each of them is asked in turn to measure for some seconds while the others wait
for their input; each round begins with another one. kindred's programs are run once per round.

Run it on an idle machine: two threads that meet at a barrier wait for the slower one, so one other
busy process can make a step with many small operations a hundred times slower.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import report

PEERS_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
# Title, program and the variant that it is asked for.
PEERS = {
    "eager": ("PyTorch eager", "torch_peer.py", "eager"),
    "jit": ("TorchScript frozen", "torch_peer.py", "jit"),
    "compile": ("torch.compile", "torch_peer.py", "compile"),
    "paddle": ("Paddle dynamic", "paddle_peer.py", "eager"),
    "paddle-inference": ("Paddle Inference", "paddle_peer.py", "inference"),
    "onnxruntime": ("ONNX Runtime", "onnx_peer.py", "onnxruntime"),
    "openvino": ("OpenVINO", "onnx_peer.py", "openvino"),
    "faiss": ("FAISS IndexFlatIP", "faiss_peer.py", "faiss"),
}
PEERS_OF = {
    "Inference": ["eager", "jit", "compile", "paddle", "paddle-inference", "onnxruntime",
                  "openvino"],
    "TrainStep": ["eager", "compile", "paddle"],
    "InferenceBF16": ["eager", "compile", "openvino"],
    "TrainStepBF16": ["eager", "compile"],
    "MarginStep": ["eager", "compile", "paddle"],
    "TopK": ["faiss"],
}
PROGRAM_OF = {"Inference": "pplcnet", "TrainStep": "pplcnet", "InferenceBF16": "pplcnet",
              "TrainStepBF16": "pplcnet", "MarginStep": "margin_softmax",
              "TopK": "retrieval"}
DEFAULT_CASES = ["TrainStep/x1_0/32", "TrainStep/x2_5/32", "Inference/x1_0/1", "Inference/x1_0/32",
                 "Inference/x2_5/1", "Inference/x2_5/32", "MarginStep/64/512/185341",
                 "MarginStep/512/512/185341", "TopK/60502/512/100"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment(options):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict(os.environ, **{name: str(options.threads) for name in names})


class Peer:
    """A running program of peers/ that holds one case."""

    def __init__(self, case, name, options):
        _, program, variant = PEERS[name]
        python = options.paddle_python if name.startswith("paddle") else sys.executable
        command = [python, os.path.join(PEERS_FOLDER, program), case, variant, "--threads",
                   str(options.threads), "--reference", options.reference]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=options.log, text=True, env=environment(options))
        self.ready = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        return {"failed": f"ended with status {self.process.wait()}"}

    def measure(self, seconds):
        try:
            self.process.stdin.write(f"measure {seconds}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says how it ended
        return self.answer()

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
        self.process.wait()


class Kindred:
    """kindred's program for a case, run anew for every measurement."""

    ready = {}

    def __init__(self, case, options):
        self.options = options
        self.program = os.path.join(options.programs, PROGRAM_OF[case.split("/")[0]])
        listed = subprocess.check_output([self.program, "--benchmark_list_tests=true"], text=True)
        found = [n for n in listed.split() if report.short_name(n) == case]
        if len(found) != 1:
            raise SystemExit(f"{self.program} has no benchmark {case}; it has:\n{listed}")
        self.name = found[0]

    def measure(self, seconds):
        command = [self.program, f"--benchmark_filter=^{self.name}$",
                   f"--benchmark_min_time={seconds}", "--benchmark_format=json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.options.log,
                              text=True) as child:
            text = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            return {"failed": f"status {child.returncode}"}
        row, = [r for r in json.loads(text)["benchmarks"] if r.get("run_type") != "aggregate"]
        return {"seconds": report.seconds(row), "peak_mib": usage.ru_maxrss / 1024}

    def close(self):
        pass


def start(case, options):
    """Who takes part, by name, and in `absent` why others do not. kindred is the last."""
    members, absent = {}, {}
    for name in PEERS_OF[case.split("/")[0]]:
        if name not in options.peers:
            continue
        say(f"  preparing {PEERS[name][0]}")
        peer = Peer(case, name, options)
        if "missing" in peer.ready or "failed" in peer.ready:
            absent[name] = "not installed" if "missing" in peer.ready else "failed"
            say(f"  *** {PEERS[name][0]} TAKES NO PART: "
                f"{peer.ready.get('missing') or peer.ready['failed']}")
            peer.close()
        else:
            members[name] = peer
    members["kindred"] = Kindred(case, options)
    return members, absent


def measure(case, options):
    """Everybody in turn, for all rounds."""
    members, absent = start(case, options)
    names = list(members)
    results = {name: [] for name in names}
    for turn in range(options.repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if name in absent:
                continue
            time.sleep(0.3)  # OpenMP's workers spin for some time after a step
            result = members[name].measure(options.seconds)
            if "failed" in result:
                say(f"  *** {name} FAILED: {result['failed']}")
                absent[name] = "failed"
                continue
            results[name].append(result)
            say(f"  round {turn + 1}/{options.repeats} {name}: "
                f"{1e3 * result['seconds']:.2f} ms, peak {result['peak_mib']:.0f} MiB")
    for member in members.values():
        member.close()
    ready = {name: member.ready for name, member in members.items()}
    return {"absent": absent, "ready": ready,
            "results": {n: r for n, r in results.items() if n not in absent}}


def median(results, key):
    return statistics.median(r[key] for r in results)


def cell(name, measured):
    if name in measured["absent"]:
        return measured["absent"][name]
    if name not in measured["results"]:
        return "-"
    results = measured["results"][name]
    return (report.spread([1e3 * r["seconds"] for r in results]) +
            f", {median(results, 'peak_mib'):.0f}")


def print_kind(kind, cases, all_measured):
    """One table: a case a row, a library a column, the ratio to the best peer."""
    names = [n for n in PEERS_OF[kind] if any(n in m["results"] or n in m["absent"]
                                              for m in all_measured)]
    rows = []
    for case, measured in zip(cases, all_measured):
        results = measured["results"]
        peers = [n for n in names if n in results]
        ratio, best = "-", "-"
        if peers and "kindred" in results:
            best = min(peers, key=lambda n: median(results[n], "seconds"))
            ratio = median(results[best], "seconds") / median(results["kindred"], "seconds")
            ratio, best = f"{ratio:.2f}", PEERS[best][0]
        rows.append([case, *(cell(n, measured) for n in names), cell("kindred", measured), ratio,
                     best])
    print(f"## {kind}\n")
    report.print_table(["case: ms, peak MiB", *(PEERS[n][0] for n in names), "kindred",
                        "times faster", "than the best peer"], rows)
    differences = [f"{PEERS[n][0]} {max(found):.1e}" for n in names
                   if (found := [m["ready"][n]["difference"] for m in all_measured
                                 if "difference" in m["ready"].get(n, {})])]
    if differences:
        print("\nLargest difference of a feature from kindred's, in units of the features' "
              f"standard deviation over the images: {', '.join(differences)}.")
    print(flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="build/benchmarks", help="folder of kindred's")
    parser.add_argument("--paddle-python", default=sys.executable, metavar="PYTHON",
                        help="interpreter that has Paddle, if another than this one")
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.7, help="of one measurement")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="also write every single measurement")
    parser.add_argument("--log", metavar="FILE", help="what the libraries say; default: nowhere")
    options = parser.parse_args()
    unknown = [c for c in options.cases if c.split("/")[0] not in PEERS_OF]
    if unknown:
        parser.error(f"unknown cases {unknown}: they begin with {', '.join(PEERS_OF)}")
    return options


def write_reference(options):
    """Weights, images and features from kindred; the exported networks of the cases."""
    say("preparing weights, images and features")
    subprocess.run([os.path.join(options.programs, "pplcnet"),
                    f"--reference={options.reference}"], check=True)
    if not {"onnxruntime", "openvino"} & set(options.peers):
        return
    for case in options.cases:
        kind, *arguments = case.split("/")
        if not kind.startswith("Inference"):
            continue
        path = os.path.join(options.reference, "_".join(arguments) + ".onnx")
        say(f"exporting {os.path.basename(path)}")
        done = subprocess.run([sys.executable, os.path.join(PEERS_FOLDER, "torch_peer.py"),
                               "--export", case, options.reference, path],
                              stdout=options.log, stderr=options.log, check=False)
        if done.returncode != 0:
            say("*** THE EXPORT FAILED: ONNX Runtime and OpenVINO will take no part")


def time_left(begin, done, options):
    if done == 0:
        return ""
    minutes = (time.time() - begin) / 60
    left = minutes / done * (len(options.cases) - done)
    return f"; {minutes:.0f} min so far, about {left:.0f} left"


def main():
    options = parse()
    load = os.getloadavg()[0]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])
    measured, begin = {}, time.time()
    with tempfile.TemporaryDirectory() as options.reference, \
            open(options.log or os.devnull, "w", encoding="utf-8") as options.log:
        if any(c.startswith(("Inference", "TrainStep")) for c in options.cases):
            write_reference(options)
        for done, case in enumerate(options.cases):
            say(f"case {done + 1}/{len(options.cases)}: {case}{time_left(begin, done, options)}")
            measured[case] = measure(case, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(measured, out, indent=1)
    print("# kindred beside its peers\n")
    for kind in PEERS_OF:
        cases = [c for c in measured if c.split("/")[0] == kind]
        if cases:
            print_kind(kind, cases, [measured[c] for c in cases])
    print(f"Milliseconds: medians of {options.repeats} interleaved rounds (lowest..highest), each "
          f"the median of at least {options.seconds} s, and the peak of resident memory of the "
          f"whole process; {options.threads} threads, float32 where the case does not say BF16.")
    versions = sorted({r["version"] for m in measured.values() for r in m["ready"].values()
                       if "version" in r})
    shown = ["PADDLE_PYTHON" if a == options.paddle_python else a for a in sys.argv]
    report.print_circumstances(["python", *shown],
                               [*versions, f"load average before {load:.2f}"])


if __name__ == "__main__":
    main()
