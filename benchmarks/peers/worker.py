"""What the programs of this folder share: each holds one case in one library, and measures it
whenever compare_peers.py asks.

A program of this folder is started with the case, the variant, the number of threads and the folder
of the reference (weights, images and features that kindred wrote). It answers with one line of JSON
when it is ready, and with one more for every line "measure SECONDS" on its standard input. What
the libraries print themselves goes to standard error.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
import traceback

IMAGE = 224
TRAIN_CLASSES = 1000
EMBEDDING = 512
MARGIN, SCALE = 0.2, 30.0


class Reference:
    """Weights by Paddle's names in Paddle's layouts, images [32,3,224,224], features [32,512]."""

    def __init__(self, folder, scale):
        import numpy
        from safetensors.numpy import load_file
        self.weights = load_file(os.path.join(folder, scale + ".safetensors"))
        images = numpy.load(os.path.join(folder, "images.npy")).reshape(-1, IMAGE, IMAGE, 3)
        self.images = numpy.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.features = numpy.load(os.path.join(folder, scale + ".npy"))
        # How much features differ from image to image: the measure of a difference.
        self.spread = float(self.features.std(axis=0).mean())

    def difference(self, features):
        """The largest difference from kindred's features, in units of their spread."""
        wanted = self.features[:len(features)]
        if features.shape != wanted.shape:
            raise ValueError(f"features of shape {features.shape} instead of {wanted.shape}")
        return float(abs(features - wanted).max()) / self.spread


def measured(step, seconds):
    """Median seconds of a step. The first one brings its memory back into the caches and counts
    only where it alone takes all the time."""
    def timed():
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    first = timed()
    times = [first] if first >= seconds else []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and first < seconds):
        times.append(timed())
    return {"seconds": statistics.median(times), "steps": len(times),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def serve(prepare):
    """prepare(kind, arguments, options) returns the step and what to say when ready: the versions
    and, where features were compared, their difference."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("variant")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--reference", required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(result):
        print(json.dumps(result), file=answers, flush=True)

    kind, *arguments = options.case.split("/")
    try:
        step, ready = prepare(kind, arguments, options)
    except ModuleNotFoundError as error:
        answer({"missing": str(error)})
        return
    except Exception as error:  # into the table; the others of the run go on
        traceback.print_exc()
        answer({"failed": f"{type(error).__name__}: {error}"})
        return
    answer(ready)
    for line in sys.stdin:
        answer(measured(step, float(line.split()[1])))
