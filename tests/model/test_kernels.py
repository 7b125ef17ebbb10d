"""What a killed process leaves of torch's kernels costs the next one a compilation, never a run."""

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._inductor import config, cpu_vec_isa
from torch._inductor.utils import clear_caches

from model import kernels
from model.kernels import SIBLING, KernelsError, is_whole, remove_halves, with_kernels
from model.probes import forget_probes

LIBRARY = Path(torch._C.__file__)
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")


def forget() -> None:
    """As a new process that finds what others have left."""
    torch._dynamo.reset()
    clear_caches()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for kernels; no library probes the processor, for that takes longer than the kernels."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kept"))
    forget_probes()
    forget()
    with config.patch({"cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": True}):
        yield tmp_path / "kept"
    forget_probes()
    forget()


def halve(path: Path) -> None:
    """A new file, for the old one may be at work in this process."""
    half = path.with_name("half")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half.replace(path)


def compiled_sum() -> Tensor:
    made: list[Tensor] = []
    double = torch.compile(lambda x: (2 * x).sin(), fullgraph=True)
    with_kernels(lambda: made.append(double(torch.ones(64))), device="cpu")
    return made[-1]


@pytest.mark.slow
def test_half_written_kernels_are_made_again(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "model.kernels")
    expected = torch.ones(64).mul(2).sin()
    torch.testing.assert_close(compiled_sum(), expected)
    libraries = list(kept.glob("*/*.so"))
    assert libraries
    assert not caplog.messages

    for each in libraries:
        halve(each)
    forget()
    torch.testing.assert_close(compiled_sum(), expected)
    assert all(map(is_whole, libraries))
    assert caplog.messages == [f"removed {len(libraries)} half-written libraries from {kept}: they are compiled again"]

    caplog.clear()
    for each in kept.glob("*/*.py"):
        halve(each)
    made = []
    for _ in range(2):  # the second finds what the first has made
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kept)
        forget()
        torch.testing.assert_close(compiled_sum(), expected)
        (message,) = caplog.messages
        assert f"{kept}, and compiles anew in {kept}{SIBLING}: RuntimeError: Failed to import" in message
        caplog.clear()
        made.append({each.stat().st_ino for each in Path(f"{kept}{SIBLING}").glob("*/*.so")})
    assert made[0] == made[1] != set()


def test_without_a_compiler_the_error_says_what_to_look_at(kept: Path) -> None:
    missing = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with missing, pytest.raises(KernelsError, match="no-such-compiler") as caught:
        compiled_sum()
    assert f"{kept} nor in {kept}{SIBLING}" in str(caught.value)


def test_only_what_ends_too_soon_and_is_nobodys_work_is_removed(tmp_path: Path) -> None:
    whole = LIBRARY.read_bytes()
    assert is_whole(LIBRARY)
    folder = tmp_path / "ab"
    folder.mkdir()
    (tmp_path / "locks").mkdir()
    contents = {
        "whole": whole,
        "short": whole[: len(whole) // 2],
        "empty": b"",
        "zeros": bytes(4096),
        "busy": whole[:100],
    }
    for name, data in contents.items():
        (folder / f"{name}.main.so").write_bytes(data)
    (folder / "short.main.cpp").write_bytes(b"")
    with (tmp_path / "locks/busy.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        removed = remove_halves(tmp_path)
    assert sorted(each.name for each in removed) == ["empty.main.so", "short.main.so", "zeros.main.so"]
    assert sorted(each.name for each in folder.iterdir()) == ["busy.main.so", "short.main.cpp", "whole.main.so"]


@pytest.mark.slow
def test_torch_compiles_for_the_processor_that_is_here(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the only probe is killed, where its library loads nowhere, and where another died while writing it."""
    capability = torch.backends.cpu.get_cpu_capability()
    isas = {"AVX2": cpu_vec_isa.VecAVX2, "AVX512": cpu_vec_isa.VecAVX512}
    if capability not in isas:
        pytest.skip("a processor that promises nothing")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", [isas[capability]()])  # one, with little to compile
    monkeypatch.setattr(cpu_vec_isa.VecISA, "_avx_code", "int probe;")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)

    def picked(*, device: str = "cpu") -> str:
        names: list[str] = []
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kept))
        forget()
        forget_probes()
        caplog.clear()
        with_kernels(lambda: names.append(str(cpu_vec_isa.pick_vec_isa())), device=device)
        return names[-1]

    def told() -> list[str]:
        return [each.getMessage().partition(":")[0] for each in caplog.records if each.name == "model.kernels"]

    with config.patch({"cpp.vec_isa_ok": None}):
        assert picked() == capability.lower()
        assert not told()
        (library,) = kept.glob("*/*.so")

        with monkeypatch.context() as killed:
            killed.setattr("sys.executable", "/bin/false")
            assert picked(device="cuda") == "INVALID_VEC_ISA"  # which asks no processor
            with pytest.raises(KernelsError, match=f"compile for INVALID_VEC_ISA on a processor with {capability}"):
                picked()
        assert is_whole(library)

        whole = library.read_bytes()
        library.unlink()
        library.write_bytes(whole[:18] + b"\xff\xff" + whole[20:])  # of another machine
        assert picked() == capability.lower()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{kept}{SIBLING}"
        assert told().count("torch probes the processor again") == 1  # there it starts from nothing

        halve(library)
        with (kept / "locks" / f"{library.name.partition('.')[0]}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

            def remove_and_die(folder: Path) -> list[Path]:
                removed = remove_halves(folder)
                fcntl.flock(lock, fcntl.LOCK_UN)
                return removed

            monkeypatch.setattr(kernels, "remove_halves", remove_and_die)
            assert picked() == capability.lower()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(kept)
        assert told() == ["torch probes the processor again", f"removed 1 half-written libraries from {kept}"]
