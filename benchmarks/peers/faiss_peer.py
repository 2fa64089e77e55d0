#!/usr/bin/env python3
"""The k most similar of every feature in FAISS: IndexFlatIP, exact, in float32."""

import worker


def prepare(kind, arguments, options):
    import faiss
    import numpy
    images, columns, k = map(int, arguments)
    faiss.omp_set_num_threads(options.threads)
    random = numpy.random.default_rng(1)
    features = random.standard_normal((images, columns), dtype=numpy.float32)
    features /= numpy.linalg.norm(features, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(columns)
    index.add(features)
    return lambda: index.search(features, k), {"version": f"FAISS {faiss.__version__}"}


if __name__ == "__main__":
    worker.serve(prepare)
