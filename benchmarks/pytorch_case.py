#!/usr/bin/env python3
"""One case in PyTorch, timed: compare_pytorch.py runs this file once per case, variant and repeat.

    python benchmarks/pytorch_case.py TrainStep/x1_0/32 compile --threads 2 --seconds 2

Prints one line of JSON: median seconds per step, steps, peak resident memory, versions.
"""

import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

IMAGE = 224
TRAIN_CLASSES = 1000
EMBEDDING = 512
MARGIN, SCALE = 0.2, 30.0

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
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4,
                                fused=True)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case")
    parser.add_argument("variant", choices=["eager", "compile", "jit"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    kind, *arguments = options.case.split("/")
    step = MAKERS[kind](*arguments, options.variant)
    for _ in range(2):
        step()
    times = []
    end = time.perf_counter() + options.seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({
        "seconds": statistics.median(times),
        "steps": len(times),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "torch": torch.__version__,
        "onednn": torch.backends.mkldnn.is_available(),
    }))


if __name__ == "__main__":
    main()
