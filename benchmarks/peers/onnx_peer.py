#!/usr/bin/env python3
"""PPLCNet in ONNX Runtime and OpenVINO, from the file that torch_peer.py exported, in float32;
InferenceBF16 in OpenVINO's BF16."""

import os

import worker


def onnxruntime_step(path, images, threads, precision):
    if precision != "f32":
        raise ValueError(f"there is no {precision} for processors")
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def step():
        return session.run(None, {"images": images})[0]

    return step, f"ONNX Runtime {onnxruntime.__version__}"


def openvino_step(path, images, threads, precision):
    import openvino
    core = openvino.Core()
    # Where the processor has BF16, OpenVINO would compute in it unless told otherwise.
    model = core.compile_model(core.read_model(path), "CPU", {
        "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads})
    request = model.create_infer_request()
    request.set_input_tensor(openvino.Tensor(images, shared_memory=True))

    def step():
        request.infer()
        return request.get_output_tensor().data

    step.alive = core, model, images  # the request only points to them
    return step, f"OpenVINO {openvino.__version__.split('-')[0]}"


def prepare(kind, arguments, options):
    scale, batch = arguments
    reference = worker.Reference(options.reference, scale)
    path = os.path.join(options.reference, f"{scale}_{batch}.onnx")
    make = {"onnxruntime": onnxruntime_step, "openvino": openvino_step}[options.variant]
    precision = "bf16" if kind.endswith("BF16") else "f32"
    step, version = make(path, reference.images[:int(batch)], options.threads, precision)
    return step, {"version": version, "difference": reference.difference(step())}


if __name__ == "__main__":
    worker.serve(prepare)
