#!/usr/bin/env python3
"""PPLCNet and ArcMargin in Paddle, from the package paddleclas: dynamic graphs ("eager"), and
Paddle Inference on the exported program ("inference"), whose passes fold batch norm."""

import os
import tempfile

import worker
from worker import EMBEDDING, IMAGE, MARGIN, SCALE, TRAIN_CLASSES


def recognizer(scale, reference):
    """Backbone, neck and head of PaddleClas with the reference's weights."""
    import paddle
    from paddleclas.ppcls.arch.backbone.legendary_models.pp_lcnet import PPLCNet
    from paddleclas.ppcls.arch.gears.arcmargin import ArcMargin
    from paddleclas.ppcls.arch.gears.fc import FC

    class RecModel(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.backbone = PPLCNet(scale=float(scale[1:].replace("_", ".")))
            self.backbone.stop_after("flatten")
            self.neck = FC(1280, EMBEDDING)
            self.head = ArcMargin(EMBEDDING, TRAIN_CLASSES, margin=MARGIN, scale=SCALE)

        def forward(self, x, label=None):
            features = self.neck(self.backbone(x))
            return features if label is None else self.head(features, label)

    model = RecModel()
    missing, unexpected = model.set_state_dict(
        {name: paddle.to_tensor(values) for name, values in reference.weights.items()})
    if missing or unexpected:
        raise ValueError(f"not the same network: missing {missing}, unexpected {unexpected}")
    return model


def eager_inference(model, images):
    import paddle
    x = paddle.to_tensor(images)

    def step():
        with paddle.no_grad():
            return model(x).numpy()

    return step


def predictor(model, images, threads):
    import paddle
    from paddle import inference
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        paddle.jit.save(paddle.jit.to_static(model, input_spec=[
            paddle.static.InputSpec([len(images), 3, IMAGE, IMAGE], "float32")]), path)
        program = path + (".json" if os.path.exists(path + ".json") else ".pdmodel")
        config = inference.Config(program, path + ".pdiparams")
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(threads)
        config.switch_ir_optim(True)
        program = inference.create_predictor(config)
    x = program.get_input_handle(program.get_input_names()[0])
    y = program.get_output_handle(program.get_output_names()[0])
    x.copy_from_cpu(images)

    def step():
        program.run()
        return y.copy_to_cpu()

    return step


def train_step(model, batch, reference):
    import paddle
    model.train()
    optimizer = paddle.optimizer.Momentum(1e-3, 0.9, parameters=model.parameters(),
                                          weight_decay=paddle.regularizer.L2Decay(5e-4))
    x = paddle.to_tensor(reference.images[:int(batch)])
    label = paddle.randint(0, TRAIN_CLASSES, [int(batch), 1])

    def step():
        paddle.nn.functional.cross_entropy(model(x, label), label).backward()
        optimizer.step()
        optimizer.clear_grad()

    return step


def margin_step(batch, embedding, classes):
    import paddle
    from paddleclas.ppcls.arch.gears.arcmargin import ArcMargin
    head = ArcMargin(int(embedding), int(classes), margin=MARGIN, scale=SCALE)
    x = paddle.randn([int(batch), int(embedding)])
    x.stop_gradient = False
    label = paddle.randint(0, int(classes), [int(batch), 1])

    def step():
        paddle.nn.functional.cross_entropy(head(x, label), label).backward()
        x.clear_grad()
        head.clear_gradients()

    return step


def prepare(kind, arguments, options):
    import paddle
    paddle.set_device("cpu")
    ready = {"version": f"Paddle {paddle.__version__}"}
    if kind == "MarginStep":
        step = margin_step(*arguments)
        step()
        return step, ready
    scale, batch = arguments
    reference = worker.Reference(options.reference, scale)
    model = recognizer(scale, reference)
    if kind == "TrainStep":
        step = train_step(model, batch, reference)
        step()
        return step, ready
    model.eval()
    images = reference.images[:int(batch)]
    step = (eager_inference(model, images) if options.variant == "eager"
            else predictor(model, images, options.threads))
    return step, dict(ready, difference=reference.difference(step()))


if __name__ == "__main__":
    worker.serve(prepare)
