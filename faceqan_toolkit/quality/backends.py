"""The libraries that compute the attack's steps: torch, torch.compile, OpenVINO.

OpenVINO has no automatic differentiation. But the backward pass consists of forward operations too:
they are appended to the network's own, and OpenVINO compiles both together.
"""

from __future__ import annotations

import operator
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from faceqan_toolkit.errors import FaceQANError, MissingDependency, SettingsError
from faceqan_toolkit.models.freeze import FrozenPReLU, Shift
from faceqan_toolkit.quality.attack import Step, autograd_step
from faceqan_toolkit.text import first_line

Value = Any
"""A node of OpenVINO, which has no type annotations."""
Pull = Callable[[Value], Value]
"""Maps the gradient with respect to a result to that with respect to one of its arguments."""
Ruled = tuple[Value, Sequence[Pull]]
"""A result, and a pull for each argument that may be a tensor."""

SHORTEST = 1e-12
"""Smallest divisor of an embedding, as in `torch.nn.functional.normalize`."""

OPENVINO_MACHINES = ("x86_64", "amd64")
"""Processor types on which OpenVINO was measured to be faster than torch."""

LEAST_AGREEMENT = 0.999
"""Least cosine between a backend's gradient and torch's; rounding gives 0.99999, a bug about 0."""


class WrongGradient(FaceQANError):
    """A backend's gradient differs from torch's on this machine."""


class CannotCompile(FaceQANError):
    """torch.compile does not work on this machine, or not with this network."""


class UnsupportedOperation(FaceQANError):
    """The network has an operation that OpenVINO's step has no rule for."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"the backend openvino cannot compute {operation}; take torch")


def make_step(
    backend: str, network: nn.Module, size: int, device: torch.device
) -> tuple[str, Step]:
    """Return the name of the backend in use, and its step.

    "auto" depends on the machine's type, the installed packages and the network, never on a
    timing: the same machine always gives the same scores. It never chooses "compile".

    Args:
        backend: "auto", "torch", "openvino" or "compile".
        network: frozen; maps (N, 3, S, S) crops to (N, D) embeddings.
        size: S, pixels.
        device: device of the network.

    Raises:
        SettingsError: "openvino" on another device than the CPU.
        MissingDependency, UnsupportedOperation, WrongGradient: "openvino"; see `OpenVINOStep`.
    """
    if backend == "compile":
        return "compile", CompiledStep(network, device)
    on_cpu = device.type == "cpu"
    suitable = on_cpu and platform.machine().lower() in OPENVINO_MACHINES
    if backend == "openvino" or (backend == "auto" and suitable):
        if not on_cpu:
            raise SettingsError(f"`backend` openvino is for `device` cpu, not {device}")
        try:
            return "openvino", OpenVINOStep(network, size, torch.get_num_threads())
        except (MissingDependency, UnsupportedOperation, WrongGradient):
            if backend == "openvino":
                raise
    return "torch", autograd_step(network)


def check_gradient(found: Tensor, expected: Tensor, name: str) -> None:
    """Raise WrongGradient if a backend's gradient differs from torch's by more than rounding."""
    agreement = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()
    if not agreement >= LEAST_AGREEMENT:
        raise WrongGradient(
            f"{name}'s gradient and torch's have a cosine of {agreement:.3f}; take the backend "
            f"torch, or another version of {name}"
        )


class CompiledStep:
    """A step of the attack by torch.compile; on a GPU with CUDA graphs.

    The network is compiled for the first copies of a shape, which takes about a minute. All blocks
    have the same shape, so that happens once. CUDA graphs launch all kernels of the forward and
    backward pass together, since small networks spend more time on launches than on arithmetic.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._recorded = device.type == "cuda"
        mode = "reduce-overhead" if self._recorded else "default"
        self._compiled = autograd_step(torch.compile(network, dynamic=False, mode=mode))
        self._plain = autograd_step(network)
        self._known: set[torch.Size] = set()

    def __call__(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities of copies to unit vectors, and their gradient, see `Step`.

        Raises:
            CannotCompile: there is no working compiler, or it fails.
            WrongGradient: the gradient for the first copy of a new shape differs from torch's.
        """
        if attacked.shape in self._known:
            return self._computed(attacked, targets)
        from torch._dynamo.exc import TorchDynamoException

        try:
            similarity, gradient = self._computed(attacked, targets)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            raise CannotCompile(
                f"`backend` compile: torch.compile fails ({first_line(cause)}). It needs a C++ "
                "compiler on a CPU and Triton on a GPU; the backend torch needs neither"
            ) from error
        _, expected = self._plain(attacked[:1], targets[:1])
        check_gradient(gradient[:1], expected, "torch.compile")
        self._known.add(attacked.shape)
        return similarity, gradient

    def _computed(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not self._recorded:
            return self._compiled(attacked, targets)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        similarity, gradient = self._compiled(attacked, targets)
        return similarity, gradient.clone()  # the next replay of the graph overwrites it


class OpenVINOStep:
    """A step of the attack by OpenVINO, compiled for this machine's CPU, in float32.

    Every copy is computed by a single thread, `threads` copies at once. So threads need not wait
    for each other, and the result depends neither on their number nor on the number of copies.

    Raises:
        MissingDependency: OpenVINO is not installed.
        UnsupportedOperation: the network cannot be converted.
        WrongGradient: the gradient for a crop of noise differs from torch's.
    """

    def __init__(self, network: nn.Module, size: int, threads: int) -> None:
        openvino = import_openvino()
        self._compiled = openvino.Core().compile_model(
            step_model(openvino, network, size),
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # the default is bfloat16 on CPUs that have it: too coarse for steps of a quarter
                # of a grey level
                "INFERENCE_PRECISION_HINT": "f32",
                # pinned threads of several processes would share the same first cores
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._requests: list[Any] = []
        crop = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        targets = F.normalize(torch.ones_like(network(crop)), dim=1)
        (_, found), (_, expected) = self(crop, targets), autograd_step(network)(crop, targets)
        check_gradient(found, expected, "OpenVINO")

    def __call__(self, attacked: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities of copies to unit vectors, and their gradient, see `Step`.

        The gradient has the memory layout of `attacked`.
        """
        while len(self._requests) < len(attacked):
            self._requests.append(self._compiled.create_infer_request())
        requests = self._requests[: len(attacked)]
        similarity, gradient = torch.empty(len(attacked)), torch.empty_like(attacked)
        # NumPy copies in this thread; torch would start threads that compete with OpenVINO's
        copies, units = attacked.numpy(), targets.numpy()
        similarities, gradients = similarity.numpy(), gradient.numpy()
        try:
            for request, copy, unit in zip(requests, copies, units, strict=True):
                request.get_input_tensor(0).data[0] = copy
                request.get_input_tensor(1).data[0] = unit
                request.start_async()
        finally:
            for request in requests:
                request.wait()
        for index, request in enumerate(requests):
            similarities[index] = request.get_output_tensor(0).data[0, 0]
            gradients[index] = request.get_output_tensor(1).data[0]
        return similarity, gradient


def import_openvino() -> Any:
    """Return the package `openvino`, imported without its telemetry, which reports every import."""
    telemetry = "openvino_telemetry"
    before = {telemetry: sys.modules[telemetry]} if telemetry in sys.modules else {}
    # None makes the import of telemetry fail; OpenVINO then uses a stub
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency(
            "the backend openvino needs an extra: pip install 'faceqan-toolkit[openvino]'"
        ) from error
    finally:
        del sys.modules[telemetry]
        sys.modules.update(before)
    return openvino


def step_model(openvino: Any, network: nn.Module, size: int) -> Any:
    """Return an `openvino.Model` of a step for one copy, float32.

    Its inputs are a copy, (1, 3, S, S), and a unit vector, (1, D); its outputs are their cosine
    similarity, (1, 1), and the gradient of that with respect to the copy, (1, 3, S, S). Raise
    UnsupportedOperation if an operation of the network has no rule.
    """
    if not isinstance(network, fx.GraphModule):
        raise UnsupportedOperation(f"{type(network).__name__}, which torch.fx cannot trace")
    ops = openvino.opset8
    rules = _Rules(ops)
    tape = _Tape(ops, rules, network)
    crop = ops.parameter([1, 3, size, size], np.float32)
    embedding = tape.forward(crop)
    target = ops.parameter(_shape(embedding), np.float32)
    similarity, gradient = rules.cosine(embedding, target)
    return openvino.Model([similarity, tape.backward(gradient)], [crop, target], "step")


class _Tape:
    """Appends the operations of a traced network, then those of its backward pass."""

    def __init__(self, ops: Any, rules: _Rules, network: fx.GraphModule) -> None:
        self.ops, self.rules, self.network = ops, rules, network
        self.values: dict[Any, Value] = {}
        # for every node but constants, in the order of computation
        self.pulls: dict[Any, Sequence[Pull]] = {}

    def forward(self, crop: Value) -> Value:
        """Return the embedding of a crop."""
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                self.source = node
                self.values[node], self.pulls[node] = crop, ()
            elif node.op == "get_attr":
                tensor = operator.attrgetter(node.target)(self.network)
                self.values[node] = self.rules.constant(tensor)
            elif node.op == "output":
                (self.result,) = node.args
            else:
                self.values[node], self.pulls[node] = self._apply(node)
        if self.result not in self.pulls or len(_shape(self.values[self.result])) != 2:
            raise UnsupportedOperation("a network whose result is not one embedding a crop")
        return self.values[self.result]

    def _apply(self, node: fx.Node) -> Ruled:
        if node.op == "call_module":
            module = self.network.get_submodule(str(node.target))
            name, rule = type(module).__name__, MODULES.get(type(module))
            own = [self.rules, module]
        else:
            name, rule = getattr(node.target, "__name__", str(node.target)), CALLS.get(node.target)
            own = [self.rules]
        if rule is None or node.kwargs:
            raise UnsupportedOperation(name)
        arguments = [self.values[a] if isinstance(a, fx.Node) else a for a in node.args]
        try:
            return rule(*own, *arguments)
        except (TypeError, RuntimeError) as error:  # unexpected arguments
            raise UnsupportedOperation(name) from error

    def backward(self, gradient: Value) -> Value:
        """Return the gradient with respect to the crop, given that for its embedding."""
        gradients = {self.result: gradient}
        for node in reversed(self.pulls):
            if node not in gradients:
                continue
            for argument, pull in zip(node.args, self.pulls[node], strict=False):
                if argument in self.pulls:
                    part, sum_so_far = pull(gradients[node]), gradients.get(argument)
                    if _shape(part) != _shape(self.values[argument]):
                        raise UnsupportedOperation(f"{node.name}, which repeats a tensor")
                    summed = part if sum_so_far is None else self.ops.add(sum_so_far, part)
                    gradients[argument] = summed
        return gradients[self.source]


class _Rules:
    """Forward and backward rules for functions and modules of torch."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops

    def constant(self, values: Tensor | float) -> Value:
        array = np.asarray(values, dtype=np.float32)
        return self.ops.constant(np.ascontiguousarray(array))

    def integers(self, values: Sequence[int]) -> Value:
        return self.ops.constant(np.array(values, dtype=np.int64))

    def operand(self, value: Value) -> Value:
        return self.constant(value) if isinstance(value, float | int) else value

    def along_channels(self, values: Tensor, x: Value) -> Value:
        """Return a constant with one value per channel of x, (1, C, ...)."""
        return self.constant(values.reshape(1, -1, *[1] * (len(_shape(x)) - 2)))

    def cosine(self, embedding: Value, target: Value) -> tuple[Value, Value]:
        """Return an embedding's similarity to a unit vector, and its gradient."""
        ops, axis = self.ops, self.integers([1])
        squares = ops.reduce_sum(ops.multiply(embedding, embedding), axis, True)
        length = ops.maximum(ops.sqrt(squares), self.constant(SHORTEST))
        unit = ops.divide(embedding, length)
        similarity = ops.reduce_sum(ops.multiply(unit, target), axis, True)
        across = ops.subtract(target, ops.multiply(similarity, unit))
        return similarity, ops.divide(across, length)

    def add(self, a: Value, b: Value) -> Ruled:
        return self.ops.add(self.operand(a), self.operand(b)), (_same, _same)

    def subtract(self, a: Value, b: Value) -> Ruled:
        return self.ops.subtract(self.operand(a), self.operand(b)), (_same, self.ops.negative)

    def multiply(self, a: Value, b: Value) -> Ruled:
        a, b = self.operand(a), self.operand(b)
        multiply = self.ops.multiply
        return multiply(a, b), (lambda gradient: multiply(gradient, b),
                                lambda gradient: multiply(gradient, a))  # fmt: skip

    def divide(self, a: Value, b: Value) -> Ruled:
        ops, a, b = self.ops, self.operand(a), self.operand(b)
        quotient = ops.divide(a, b)
        return quotient, (
            lambda gradient: ops.divide(gradient, b),
            lambda gradient: ops.negative(ops.divide(ops.multiply(gradient, quotient), b)),
        )

    def flatten(self, x: Value, start: int = 0, end: int = -1) -> Ruled:
        if (start, end) != (1, -1):
            raise UnsupportedOperation("flatten with other axes than one crop's")
        reshape, before = self.ops.reshape, self.integers(_shape(x))
        flat = reshape(x, self.integers([1, -1]), False)
        return flat, (lambda gradient: reshape(gradient, before, False),)

    def flip(self, x: Value, axis: int) -> Ruled:
        backwards = self.integers(range(_shape(x)[axis])[::-1])

        def flipped(value: Value) -> Value:
            return self.ops.gather(value, backwards, self.ops.constant(np.int64(axis)))

        return flipped(x), (flipped,)

    def nothing(self, module: nn.Module, x: Value) -> Ruled:
        return x, (_same,)

    def prelu(self, module: FrozenPReLU, x: Value) -> Ruled:
        ops, slopes = self.ops, self.along_channels(module.slopes, x)
        positive = ops.greater(x, self.constant(0))

        def bent(value: Value) -> Value:
            return ops.select(positive, value, ops.multiply(value, slopes))

        return bent(x), (bent,)

    def shift(self, module: Shift, x: Value) -> Ruled:
        return self.ops.add(x, self.constant(module.amount)), (_same,)

    def batch_norm(self, module: nn.BatchNorm1d | nn.BatchNorm2d, x: Value) -> Ruled:
        if module.running_mean is None or module.running_var is None:
            raise UnsupportedOperation("a batch norm that keeps no statistics")
        scale = 1 / torch.sqrt(module.running_var.double() + module.eps)
        if module.weight is not None:
            scale = scale * module.weight
        shift = -module.running_mean * scale
        if module.bias is not None:
            shift = shift + module.bias
        multiply, scales = self.ops.multiply, self.along_channels(scale, x)
        normalised = self.ops.add(multiply(x, scales), self.along_channels(shift, x))
        return normalised, (lambda gradient: multiply(gradient, scales),)

    def linear(self, module: nn.Linear, x: Value) -> Ruled:
        weight = self.constant(module.weight)
        product = self.ops.matmul(x, weight, False, True)
        if module.bias is not None:
            product = self.ops.add(product, self.along_channels(module.bias, x))
        return product, (lambda gradient: self.ops.matmul(gradient, weight, False, False),)

    def convolution(self, module: nn.Conv2d, x: Value) -> Ruled:
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            raise UnsupportedOperation(f"a convolution padded with {module.padding_mode}")
        value, pulls = self.convolve(
            x, module.weight, module.groups, module.stride, module.padding, module.dilation
        )
        if module.bias is not None:
            value = self.ops.add(value, self.along_channels(module.bias, value))
        return value, pulls

    def picking_pool(self, module: nn.MaxPool2d, x: Value) -> Ruled:
        """Subsample pixels, as the shortcuts of IR networks do."""
        if _pair(module.kernel_size) != (1, 1) or _pair(module.padding) != (0, 0):
            raise UnsupportedOperation("MaxPool2d over more than one pixel")
        channels = _shape(x)[1]
        ones = torch.ones(channels, 1, 1, 1)
        return self.convolve(x, ones, channels, _pair(module.stride), (0, 0), (1, 1))

    def convolve(
        self, x: Value, weight: Tensor, groups: int, stride: tuple[int, ...],
        padding: tuple[int, ...], dilation: tuple[int, ...],
    ) -> Ruled:  # fmt: skip
        """Convolve (1, C, H, W) with weights (O, C / groups, h, w)."""
        forward, backward = self.ops.convolution, self.ops.convolution_backprop_data
        if groups > 1:
            forward = self.ops.group_convolution
            backward = self.ops.group_convolution_backprop_data
            weight = weight.reshape(groups, -1, *weight.shape[1:])
        # rows and columns at the end that the kernel never reaches
        unreached = [
            (side + 2 * pad - apart * (length - 1) - 1) % step
            for side, pad, apart, length, step in zip(
                _shape(x)[2:], padding, dilation, weight.shape[-2:], stride, strict=True
            )
        ]
        places = (list(stride), list(padding), list(padding), list(dilation))

        def pull(gradient: Value) -> Value:
            steps, begin, end, apart = places
            # not the forward pass's constant: OpenVINO packs a shared one only once, which gives
            # wrong results for equal numbers of input and output channels
            return backward(
                gradient, self.constant(weight), steps, pads_begin=begin, pads_end=end,
                dilations=apart, output_padding=unreached,
            )  # fmt: skip

        return forward(x, self.constant(weight), *places), (pull,)


def _same(gradient: Value) -> Value:
    return gradient


def _shape(value: Value) -> list[int]:
    return list(value.get_output_shape(0))


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value, value)


MODULES: Mapping[type[nn.Module], Callable[..., Ruled]] = {
    nn.Conv2d: _Rules.convolution,
    nn.Linear: _Rules.linear,
    nn.BatchNorm1d: _Rules.batch_norm,
    nn.BatchNorm2d: _Rules.batch_norm,
    FrozenPReLU: _Rules.prelu,
    Shift: _Rules.shift,
    nn.MaxPool2d: _Rules.picking_pool,
    nn.Flatten: lambda rules, module, x: rules.flatten(x, module.start_dim, module.end_dim),
    nn.Dropout: _Rules.nothing,
    nn.Identity: _Rules.nothing,
}
CALLS: Mapping[Any, Callable[..., Ruled]] = {
    operator.add: _Rules.add,
    operator.iadd: _Rules.add,
    torch.add: _Rules.add,
    operator.sub: _Rules.subtract,
    operator.isub: _Rules.subtract,
    operator.mul: _Rules.multiply,
    operator.imul: _Rules.multiply,
    operator.truediv: _Rules.divide,
    operator.itruediv: _Rules.divide,
    torch.flatten: _Rules.flatten,
    "flatten": _Rules.flatten,
    "flip": _Rules.flip,
}
"""Rules of functions, and of tensors' methods by name."""
