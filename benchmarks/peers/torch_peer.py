#!/usr/bin/env python3
"""PPLCNet and ArcMargin in PyTorch, as its users write them: eager in channels_last, TorchScript
frozen and optimised for inference, torch.compile; the BF16 cases with autocast. See worker.py for
how it is run.

    python torch_peer.py --export Inference/x1_0/32 REFERENCE FILE.onnx

writes the network with the reference's weights for ONNX Runtime and OpenVINO.
"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

import worker
from worker import EMBEDDING, MARGIN, SCALE, TRAIN_CLASSES

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

    def forward(self, x, label=None):
        features = self.neck(self.backbone(x))
        return features if label is None else self.head(features, label)


def scale_of(name):
    return float(name[1:].replace("_", "."))


def torch_name(name):
    return (name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
            .replace("neck.fc.", "neck."))


def load(model, weights):
    """Every tensor of the file into the tensor of its name; linear layers lie transposed there."""
    state = {torch_name(name): torch.from_numpy(values.T.copy() if name in
                                                ("neck.fc.weight", "head.weight") else values)
             for name, values in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"not the same network: missing {missing}, unexpected {unexpected}")
    return model


def recognizer(scale, batch, reference):
    """The model with the reference's weights, and images."""
    model = load(RecModel(scale_of(scale)), reference.weights)
    images = torch.from_numpy(reference.images[:int(batch)])
    last = torch.channels_last
    return model.to(memory_format=last), images.contiguous(memory_format=last)


def autocast(bf16):
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def inference(scale, batch, variant, reference, bf16):
    model, x = recognizer(scale, batch, reference)
    model.eval()
    with torch.no_grad(), autocast(bf16):
        if variant == "jit":
            model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))
        elif variant == "compile":
            from torch._inductor import config
            config.freezing = True  # folds batch norm and packs weights
            model = torch.compile(model)

    def step():
        with torch.no_grad(), autocast(bf16):
            return model(x)

    step()
    return step, {"difference": reference.difference(step().float().numpy())}


def train_step(scale, batch, variant, reference, bf16):
    model, x = recognizer(scale, batch, reference)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4,
                                fused=True)
    label = torch.randint(TRAIN_CLASSES, (int(batch),))
    forward = torch.compile(model) if variant == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast(bf16):
            loss = F.cross_entropy(forward(x, label), label)
        loss.backward()
        optimizer.step()

    step()
    return step, {}


def margin_step(batch, embedding, classes, variant):
    head = ArcMargin(int(embedding), int(classes))
    x = torch.randn(int(batch), int(embedding), requires_grad=True)
    label = torch.randint(int(classes), (int(batch),))
    forward = torch.compile(head) if variant == "compile" else head

    def step():
        x.grad = None
        head.weight.grad = None
        F.cross_entropy(forward(x, label), label).backward()

    step()
    return step, {}


def prepare(kind, arguments, options):
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if kind == "MarginStep":
        step, ready = margin_step(*arguments, options.variant)
    else:
        reference = worker.Reference(options.reference, arguments[0])
        make = {"Inference": inference, "TrainStep": train_step}[kind.removesuffix("BF16")]
        step, ready = make(*arguments, options.variant, reference, kind.endswith("BF16"))
    return step, dict(ready, version=f"PyTorch {torch.__version__}")


def export(case, folder, path):
    _, scale, batch = case.split("/")
    reference = worker.Reference(folder, scale)
    model = load(RecModel(scale_of(scale)), reference.weights).eval()
    images = torch.from_numpy(reference.images[:int(batch)])
    torch.onnx.export(model, (images,), path, dynamo=True, external_data=False,
                      input_names=["images"], output_names=["features"])


if __name__ == "__main__":
    if sys.argv[1] == "--export":
        export(*sys.argv[2:])
    else:
        worker.serve(prepare)
