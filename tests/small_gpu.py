"""A GPU without float64, made of the CPU: what a run asks of an Apple GPU, on any machine.

Its tensors wrap those of the CPU and have a device of their own. A float64 tensor on it is an error, and so is a tensor of
the CPU beside its own, unless it is a single number. Only in a process of its own: torch cannot forget a device.
"""

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyDeviceGuard,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

NAME = "smallgpu"
CPU = torch.device("cpu")


class OnGPU(torch.Tensor):
    """A tensor on the small GPU."""

    @staticmethod
    def __new__(cls, raw):
        if raw.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"The small GPU has no {raw.dtype}.")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, raw):
        self.raw = raw

    def tolist(self):
        return self.raw.tolist()

    def __reduce_ex__(self, protocol):
        return self.raw.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, *args, **(kwargs or {}))


def _run(func, *args, **kwargs):
    """The operation on the CPU; its results are on the GPU if anything that it was given is."""
    name = func._schema.name.removeprefix("aten::")
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if name not in ("copy_", "_to_copy", "set_", "index", "index_put_", "_index_put_impl_"):
        alien = [tuple(x.shape) for x in tensors if not isinstance(x, OnGPU) and x.dim()]
        if alien and any(isinstance(x, OnGPU) for x in tensors):
            raise RuntimeError(f"{func} was given tensors of the CPU {alien} beside those of the small GPU.")
    target = kwargs.get("device")
    on_gpu = torch.device(target).type == NAME if target is not None else any(isinstance(x, OnGPU) for x in tensors)
    raw_args, raw_kwargs = pytree.tree_map(_raw if on_gpu else _raw_alone, (args, kwargs))
    if target is not None:
        raw_kwargs["device"] = CPU
    if name == "copy_" and isinstance(args[0], OnGPU) != isinstance(args[1], OnGPU):
        wider = args[0] if isinstance(args[0], OnGPU) else args[1]
        assert wider.dtype != torch.float64
    out = func(*raw_args, **raw_kwargs)
    if out is None:
        return None
    written = func._schema.arguments and func._schema.arguments[0].alias_info
    if written is not None and written.is_write and name.endswith("_"):
        first = args[0]
        if isinstance(first, OnGPU) and first.shape != first.raw.shape:
            _follow(first, func, args, kwargs)
        return first
    if "out" in kwargs:
        return kwargs["out"]
    return pytree.tree_map(lambda x: OnGPU(x) if on_gpu and isinstance(x, torch.Tensor) else x, out)


def _raw_alone(x):
    return x.raw if isinstance(x, OnGPU) else x


def _raw(x):
    """Python's numbers, which C++ passes on as float64 tensors of the CPU without dimension, widen nothing."""
    is_number = isinstance(x, torch.Tensor) and not isinstance(x, OnGPU) and x.dtype == torch.float64 and x.dim() == 0
    return x.float() if is_number else _raw_alone(x)


def _follow(tensor, func, args, kwargs):
    """Give the wrapper the shape that an operation such as ``squeeze_`` has given to what it wraps."""
    with torch.utils._mode_utils.no_dispatch():
        before = torch._C._meta_in_tls_dispatch_include()
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


class _Module(_DummyBackendModule):
    """The part of ``torch.mps`` that a run asks for: states of random streams take no device."""

    state = torch.zeros(8, dtype=torch.uint8)

    def get_rng_state(self):
        return self.state

    def set_rng_state(self, state):
        assert state.device.type == "cpu"
        self.state = state

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device=None):
        pass


class SmallGPU(CPUAccelerator):
    """Lightning's view of it."""

    def setup_device(self, device):
        pass

    @staticmethod
    def parse_devices(devices):
        return [0]

    @staticmethod
    def get_parallel_devices(devices):
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return NAME


def _made_on_the_cpu(make):
    def run(*args, device=None, **kwargs):
        made = make(*args, **kwargs)
        return made if device is None else made.to(device)

    return run


class _Generator(torch.Generator):
    """Random streams of the small GPU are those of the CPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


def install():
    """From here on this process has a small GPU, and ssl_lab knows that it lacks float64."""
    from ssl_lab import devices

    _setup_privateuseone_for_python_backend(NAME, _Module(), _DummyPrivateUse1Hook(), _DummyDeviceGuard())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: _run(func, *args, **kwargs), "PrivateUse1")
    _keep.append(library)
    devices._WITHOUT_FLOAT64.add(NAME)
    torch.Generator = _Generator
    for name in ("tensor", "arange"):  # torch's own fill memory of the device in C++, which this one does not have
        setattr(torch, name, _made_on_the_cpu(getattr(torch, name)))
    AcceleratorRegistry.register(NAME, SmallGPU)
    StrategyRegistry.register(NAME, SingleDeviceStrategy, device=f"{NAME}:0", accelerator=SmallGPU())


_keep = []


def run_main(args):
    """``ssl-lab`` in a process with a small GPU."""
    install()
    torch.accelerator.synchronize = lambda device=None: None  # its work is done at once
    import forked

    forked.run_main(args)
