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
in a process of its own, so that the peak resident memory is its own and no variant warms another's
caches. kindred's programs are asked for the same case by --benchmark_filter, once per repeat, and
report the mean of their own iterations. Without --kindred only PyTorch is timed.

Run it on an idle machine: two threads that meet at a barrier wait for the slower one, so one other
busy process can make a step with many small operations a hundred times slower. The load average at
the start is printed under the table.
"""

import argparse
import datetime
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

IMAGE = 224
TRAIN_CLASSES = 1000
EMBEDDING = 512
MARGIN, SCALE = 0.2, 30.0
DEFAULT_CASES = ["Inference/x1_0/1", "Inference/x1_0/32", "Inference/x2_5/1", "Inference/x2_5/32",
                 "TrainStep/x1_0/1", "TrainStep/x1_0/32", "TrainStep/x2_5/1", "TrainStep/x2_5/32",
                 "MarginStep/64/512/185341"]

# kernel size, input and output channels at scale 1, stride, squeeze-excite
PPLCNET_BLOCKS = {
    "blocks2": [(3, 16, 32, 1, False)],
    "blocks3": [(3, 32, 64, 2, False), (3, 64, 64, 1, False)],
    "blocks4": [(3, 64, 128, 2, False), (3, 128, 128, 1, False)],
    "blocks5": [(3, 128, 256, 2, False)] + 5 * [(5, 256, 256, 1, False)],
    "blocks6": [(5, 256, 512, 2, True), (5, 512, 512, 1, True)],
}


def make_divisible(value, divisor=8):
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class ConvBNAct(nn.Module):
    def __init__(self, inputs, outputs, size, stride, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.Hardswish()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 4, 1)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        gate = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.conv2(F.relu(self.conv1(gate))))


class DepthwiseSeparable(nn.Module):
    def __init__(self, inputs, outputs, size, stride, squeeze):
        super().__init__()
        self.dw_conv = ConvBNAct(inputs, inputs, size, stride, groups=inputs)
        self.se = SqueezeExcite(inputs) if squeeze else None
        self.pw_conv = ConvBNAct(inputs, outputs, 1, 1)

    def forward(self, x):
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


class PPLCNet(nn.Module):
    """As PaddleClas defines it, up to flatten; parameters carry the same names."""

    def __init__(self, scale, class_expand=1280, dropout=0.2):
        super().__init__()
        self.conv1 = ConvBNAct(3, make_divisible(16 * scale), 3, 2)
        for name, rows in PPLCNET_BLOCKS.items():
            setattr(self, name, nn.Sequential(*[
                DepthwiseSeparable(make_divisible(i * scale), make_divisible(o * scale), k, s, se)
                for k, i, o, s, se in rows]))
        self.last_conv = nn.Conv2d(make_divisible(512 * scale), class_expand, 1, bias=False)
        self.dropout = dropout

    def forward(self, x):
        x = self.blocks6(self.blocks5(self.blocks4(self.blocks3(self.blocks2(self.conv1(x))))))
        x = F.hardswish(self.last_conv(F.adaptive_avg_pool2d(x, 1))).flatten(1)
        # Paddle's mode downscale_in_infer: a plain mask in training, a factor at evaluation.
        if self.training:
            return (1 - self.dropout) * F.dropout(x, self.dropout, True)
        return (1 - self.dropout) * x


class ArcMargin(nn.Module):
    """The usual PyTorch code: logits over all classes, the target's column replaced."""

    def __init__(self, embedding, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, embedding))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x, label):
        cosine = F.linear(F.normalize(x), F.normalize(self.weight))
        target = cosine.gather(1, label[:, None])
        sine = torch.sqrt(1.0 - target * target + 1e-6)
        phi = target * math.cos(MARGIN) - sine * math.sin(MARGIN)
        phi = torch.where(target > -math.cos(MARGIN), phi, target - MARGIN * math.sin(MARGIN))
        return SCALE * cosine.scatter(1, label[:, None], phi)


class RecModel(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.backbone = PPLCNet(scale)
        self.neck = nn.Linear(1280, EMBEDDING)
        self.head = ArcMargin(EMBEDDING, TRAIN_CLASSES)

    def forward(self, x, label):
        return self.head(self.neck(self.backbone(x)), label)


def scale_of(name):
    return float(name[1:].replace("_", "."))


def images(batch):
    return torch.rand(batch, 3, IMAGE, IMAGE).contiguous(memory_format=torch.channels_last)


def inference_step(scale, batch, variant):
    model = PPLCNet(scale_of(scale)).eval().to(memory_format=torch.channels_last)
    x = images(int(batch))
    if variant == "jit":
        with torch.no_grad():
            model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))
    elif variant == "compile":
        model = torch.compile(model)

    def step():
        with torch.inference_mode():
            model(x)

    return step


def train_step(scale, batch, variant):
    model = RecModel(scale_of(scale)).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, label = images(int(batch)), torch.randint(TRAIN_CLASSES, (int(batch),))
    forward = torch.compile(model) if variant == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(x, label), label).backward()
        optimizer.step()

    return step


def margin_step(batch, embedding, classes, variant):
    head = ArcMargin(int(embedding), int(classes))
    x = torch.randn(int(batch), int(embedding), requires_grad=True)
    label = torch.randint(int(classes), (int(batch),))
    forward = torch.compile(head) if variant == "compile" else head

    def step():
        x.grad = None
        head.weight.grad = None
        F.cross_entropy(forward(x, label), label).backward()

    return step


MAKERS = {"Inference": inference_step, "TrainStep": train_step, "MarginStep": margin_step}
VARIANTS = {"Inference": ["eager", "jit", "compile"], "TrainStep": ["eager", "compile"],
            "MarginStep": ["eager", "compile"]}


def work(case, variant, threads, seconds):
    """In the child process: warms up, times steps for some seconds, prints one line of JSON."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind, *arguments = case.split("/")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = MAKERS[kind](*arguments, variant)
    for _ in range(2):
        step()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": statistics.median(times), "steps": len(times),
                      "peak_mib": peak / 1024, "start_mib": before / 1024}))


def run_torch(case, variant, options):
    command = [sys.executable, os.path.abspath(__file__), "--work", case, "--variant", variant,
               "--threads", str(options.threads), "--seconds", str(options.seconds)]
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
    print(f"{cpu_model()}, {datetime.date.today().isoformat()}; PyTorch {torch.__version__} "
          f"(oneDNN {'on' if torch.backends.mkldnn.is_available() else 'off'}), Python "
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
    parser.add_argument("--skip", nargs="*", default=[], choices=["eager", "jit", "compile"])
    parser.add_argument("--json", metavar="FILE", help="also write every single measurement")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    if options.work:
        work(options.work, options.variant, options.threads, options.seconds)
        return
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
