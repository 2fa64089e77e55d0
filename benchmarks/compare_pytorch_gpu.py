#!/usr/bin/env python3
"""kindred's training steps against PyTorch's on the same GPU, in one run.

    python3 benchmarks/compare_pytorch_gpu.py --program build_gpu/benchmarks/gpu/benchmark_gpu_steps

Cases: a training step of PPLCNet x2_5 with ArcMargin at batch 256, and the ArcMargin + CELoss step
with both gradients at B = 512, D = 512 and two numbers of classes. PyTorch runs eagerly and under
torch.compile, in FP32, TF32 and with autocast to BF16; of kindred, bf16 rounds the factors of
products alone, and amp stores maps in BF16, too. Images and labels are on the device. Every figure is
the median of rounds between two events. Prints Markdown; --output writes it to a file.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers"))
import torch_peer  # noqa: E402: the network as its users write it
from worker import IMAGE, TRAIN_CLASSES  # noqa: E402

CASES = ["TrainStep/x1_0/256", "TrainStep/x2_5/256", "MarginStep/512/512/185341",
         "MarginStep/512/512/1000000"]
MODES = ["fp32", "tf32", "bf16", "amp"]
AUTOCAST = ("bf16", "amp")
VARIANTS = ["eager", "compile"]


def set_mode(mode):
    torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
    torch.backends.cudnn.allow_tf32 = mode == "tf32"
    torch.backends.cudnn.benchmark = True


def train_step(scale, batch, mode, variant):
    last = torch.channels_last
    model = torch_peer.RecModel(torch_peer.scale_of(scale)).cuda().to(memory_format=last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4,
                                fused=True)
    x = torch.randn(batch, 3, IMAGE, IMAGE, device="cuda").contiguous(memory_format=last)
    label = torch.randint(TRAIN_CLASSES, (batch,), device="cuda")
    forward = torch.compile(model) if variant == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=mode in AUTOCAST):
            loss = F.cross_entropy(forward(x, label), label)
        loss.backward()
        optimizer.step()

    return step


def margin_step(batch, embedding, classes, mode, variant):
    head = torch_peer.ArcMargin(embedding, classes).cuda()
    x = torch.randn(batch, embedding, device="cuda", requires_grad=True)
    label = torch.randint(classes, (batch,), device="cuda")
    forward = torch.compile(head) if variant == "compile" else head

    def step():
        x.grad = None
        head.weight.grad = None
        with torch.autocast("cuda", torch.bfloat16, enabled=mode in AUTOCAST):
            loss = F.cross_entropy(forward(x, label), label)
        loss.backward()

    return step


def milliseconds(step, rounds=9, calls=5):
    for _ in range(5):
        step()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def pytorch(case, mode, variant):
    """Milliseconds, or why there are none."""
    kind, *arguments = case.split("/")
    set_mode(mode)
    try:
        if kind == "TrainStep":
            step = train_step(arguments[0], int(arguments[1]), mode, variant)
        else:
            step = margin_step(*map(int, arguments), mode, variant)
        return milliseconds(step)
    except Exception as error:  # into the table; the other cases go on
        return type(error).__name__
    finally:
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def kindred(program, parts):
    """The program's lines by case; its messages go to the terminal."""
    done = subprocess.run([program, *parts], stdout=subprocess.PIPE, text=True, check=True)
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


def cell(value):
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def modes_of(case):
    return [mode for mode in MODES if mode != "amp" or case.startswith("TrainStep")]


def table(cases, ours, theirs):
    head = ["case", "mode", "kindred, ms"] + [f"PyTorch {v}, ms" for v in VARIANTS] + ["faster by"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for case in cases:
        for mode in modes_of(case):
            mine = ours.get(f"{case}/{mode}", {}).get("milliseconds", "not built")
            others = [theirs[case, mode, v] for v in VARIANTS]
            numbers = [o for o in others if isinstance(o, float)]
            faster = f"{min(numbers) / mine:.2f} x" if numbers and isinstance(mine, float) else "-"
            cells = [case, mode, cell(mine), *map(cell, others), faster]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def margin_floor(case, matrix_rate, bandwidth):
    """Milliseconds that a margin step takes at least: three products at the card's rate, or the
    centres read twice and their gradient written once at its bandwidth."""
    batch, embedding, classes = map(int, case.split("/")[1:4])
    products = 6e-9 * batch * embedding * classes / matrix_rate["TFLOP/s"]
    traffic = 12e-6 * embedding * classes / bandwidth["GB/s"]
    return max(products, traffic)


def limits(ours):
    lines = ["", "| limit of the card, measured | value |", "|---|---:|"]
    for case, line in ours.items():
        for unit in ("GB/s", "TFLOP/s"):
            if case.startswith(("Copy", "Product")) and unit in line:
                lines.append(f"| {case} | {line[unit]:.4g} {unit} |")
    lines += ["", "| margin step | of the matrix rate | its floor, ms | times its floor |",
              "|---|---:|---:|---:|"]
    for case, line in ours.items():
        rate = ours.get("Product/8192/" + case.split("/")[-1])
        if case.startswith("MarginStep") and rate:
            share = 100 * line["TFLOP/s"] / rate["TFLOP/s"]
            floor = margin_floor(case, rate, ours["Copy/1000000000"])
            lines.append(f"| {case} | {share:.0f}% | {floor:.2f} "
                         f"| {line['milliseconds'] / floor:.2f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--output")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing was measured")
    ours = kindred(options.program, ["Copy", "Product", *options.cases])
    theirs = {(case, mode, variant): pytorch(case, mode, variant)
              for case in options.cases for mode in modes_of(case) for variant in VARIANTS}
    lines = [f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, PyTorch "
             f"{torch.__version__}, {datetime.date.today()}", ""]
    lines += table(options.cases, ours, theirs) + limits(ours)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
