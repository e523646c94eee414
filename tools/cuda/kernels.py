"""Compiles pippin-cuda's kernels with NVRTC and launches them by name, over the driver's C interface. Needs torch and a GPU.

What the scripts beside this one have in common; the structures are those of crates/pippin-cuda/kernels/tiles.cu.
"""

import ctypes as C
import glob
import os

import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
KERNELS = os.path.join(ROOT, "crates/pippin-cuda/kernels")

u32, i32, f32, at = C.c_uint32, C.c_int, C.c_float, C.c_uint64


class TilePart(C.Structure):
    _fields_ = [("tiles", at), ("out", at), ("bias", at), ("residual", at), ("outputs", u32)]


class RowNorm(C.Structure):
    _fields_ = [("weight", at), ("eps", f32), ("is_there", i32)]


class Attribute(C.Structure):
    _fields_ = [("id", i32), ("pad", C.c_char * 4), ("value", i32 * 16)]


class Config(C.Structure):
    _fields_ = [("grid", u32 * 3), ("block", u32 * 3), ("shared", u32), ("stream", C.c_void_p), ("attributes", C.POINTER(Attribute)), ("count", u32)]


def library(*names):
    folders = [os.path.dirname(torch.__file__) + "/../nvidia/**", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib"]
    for name in names:
        try:
            return C.CDLL(name)
        except OSError:
            for folder in folders:
                for path in glob.glob(f"{folder}/{name}", recursive=True):
                    return C.CDLL(path)
    raise OSError(f"none of {names} is here")


def compiled(extra=()):
    """The kernels of products, and further files behind them, as a binary for this device."""
    files = [f"{KERNELS}/{name}.cu" for name in ("common", "rows", "products", "tiles")] + list(extra)
    source = "".join(f'#line 1 "{os.path.basename(file)}"\n{open(file).read()}' for file in files)
    nvrtc, program, size = library("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"), C.c_void_p(), C.c_size_t()
    major, minor = torch.cuda.get_device_capability()
    suffix = "a" if major == 9 else ""
    options = [f"--gpu-architecture=sm_{major}{minor}{suffix}".encode(), b"-default-device"]
    nvrtc.nvrtcCreateProgram(C.byref(program), source.encode(), b"pippin.cu", 0, None, None)
    if nvrtc.nvrtcCompileProgram(program, len(options), (C.c_char_p * len(options))(*options)):
        nvrtc.nvrtcGetProgramLogSize(program, C.byref(size))
        log = C.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.value.decode())
    nvrtc.nvrtcGetCUBINSize(program, C.byref(size))
    binary = C.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, binary)
    return binary


class Module:
    def __init__(self, extra=()):
        torch.zeros(1, device="cuda")
        self.driver, self.module, self.functions = C.CDLL("libcuda.so.1"), C.c_void_p(), {}
        self.check(self.driver.cuModuleLoadData(C.byref(self.module), compiled(extra)))

    @staticmethod
    def check(result):
        if result:
            raise RuntimeError(f"the driver says {result}")

    def launch(self, name, grid, threads, shared, arguments, begins_early=True):
        if name not in self.functions:
            function = C.c_void_p()
            self.check(self.driver.cuModuleGetFunction(C.byref(function), self.module, name.encode()))
            # Shared memory as far as it goes: 200 KiB.
            self.check(self.driver.cuFuncSetAttribute(function, 8, 200 << 10))
            self.functions[name] = function
        attributes = (Attribute * 1)()
        attributes[0].id, attributes[0].value[0] = 6, 1
        config = Config(shared=shared, stream=torch.cuda.current_stream().cuda_stream, attributes=attributes, count=int(begins_early))
        config.grid[:], config.block[:] = [*grid, 1, 1][:3], [threads, 1, 1]
        pointers = (C.c_void_p * len(arguments))(*[C.cast(C.pointer(argument), C.c_void_p) for argument in arguments])
        self.check(self.driver.cuLaunchKernelEx(C.byref(config), self.functions[name], pointers, None))


def place(tensor):
    return 0 if tensor is None else tensor.data_ptr()


def splits_of(quads):
    """As `splits` in crates/pippin-cuda/src/tiles.rs."""
    turns = (quads + 15) // 16
    return (quads + turns - 1) // turns


class Matrix:
    """Random weights of four bits in groups of 64, packed in tiles."""

    def __init__(self, module, outputs, columns, seed=0, keeps=False):
        random = torch.Generator(device="cuda").manual_seed(seed)
        self.outputs, self.columns = outputs, columns
        self.quads, self.lines = (columns + 255) // 256, (outputs + 15) // 16
        weights = torch.randint(-(2**31), 2**31 - 1, (outputs, columns // 8), dtype=torch.int32, device="cuda", generator=random)
        scales = (torch.rand(outputs, columns // 64, device="cuda", generator=random) * 0.02 + 0.001).bfloat16()
        biases = (-8 * scales.float()).bfloat16()
        self.tiles = torch.empty(self.lines * self.quads * 2304, dtype=torch.uint8, device="cuda")
        of_arguments = [at(place(self.tiles)), at(place(weights)), at(place(scales)), at(place(biases)), u32(outputs), u32(columns), u32(64), u32(self.quads)]
        module.launch("pack_tiles", (self.lines * self.quads,), 128, 0, of_arguments)
        torch.cuda.synchronize()
        if keeps:
            self.kept = weights, scales, biases

    def dense(self):
        weights, scales, biases = self.kept
        shifts = torch.arange(0, 32, 4, device="cuda", dtype=torch.int32)
        numbers = ((weights[:, :, None] >> shifts) & 15).reshape(self.outputs, self.columns).double()
        return numbers * scales.double().repeat_interleave(64, 1) + biases.double().repeat_interleave(64, 1)


def microseconds(work, repetitions=9):
    """The median time of what `work` launches, as one graph."""
    stream, times = torch.cuda.Stream(), []
    with torch.cuda.stream(stream):
        work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
        for _ in range(repetitions + 1):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            graph.replay()
            end.record(stream)
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times[1:])[repetitions // 2]
