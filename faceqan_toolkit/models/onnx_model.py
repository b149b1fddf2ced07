"""Any face recognition network that comes as an ONNX file, as a differentiable torch module."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import FaceQANError, MissingDependency, UnsupportedGraph
from faceqan_toolkit.process_wide import keep_onnxruntime_private

if TYPE_CHECKING:
    from faceqan_toolkit.models.onnx_network import OnnxModel
    from faceqan_toolkit.models.preprocessing import Preprocessing


def load_onnx(content: bytes, preprocessing: Preprocessing | None = None) -> OnnxModel:
    """Return the network that an ONNX file's content holds, checked.

    Its embeddings of two crops are those that onnxruntime computes (within 1e-4 of their length),
    no crop's embedding depends on the batch, and the gradient with respect to the crops agrees
    with a finite difference. Quantised weights are dequantised; of quantised activations the
    range stays, and the rounding, which has no gradient, is left out.

    Args:
        content: one graph with its weights; its input is pictures of S x S pixels, and one of
            its outputs an embedding for each.
        preprocessing: what the graph has to be given. None gives pixels in 0..255 or in 0..1 to
            a graph that scales them itself, and (pixel - 127.5) / 127.5 to any other; RGB.

    Raises:
        MissingDependency: the extra `onnx` is not installed.
        DamagedWeights: no ONNX file, cut off, NaN or infinite weights, or embeddings that are
            not finite or equal for unlike crops.
        MissingWeights: its weights are in other files.
        WrongArchitecture: inputs or outputs are not those of a face recogniser, an embedding
            depends on the batch, or the preprocessing is for another size.
        UnsupportedGraph: it cannot be converted, or what it became computes something else.
    """
    keep_onnxruntime_private()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import onnx  # noqa: F401
            import onnx2torch  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise MissingDependency(
                "an ONNX model needs an extra: pip install 'faceqan-toolkit[onnx]'"
            ) from error
        onnxruntime.disable_telemetry_events()
        from faceqan_toolkit.models.onnx_network import read_network
        from faceqan_toolkit.models.onnx_session import first_line

        try:
            return read_network(content, preprocessing)
        except FaceQANError:
            raise
        except Exception as error:  # three libraries read what a stranger wrote
            raise UnsupportedGraph(f"cannot be converted: {first_line(error)}") from error
