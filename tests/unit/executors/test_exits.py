import signal

from engine.executors.base import Exit, ExitKind
from engine.executors.exits import describe, oom_kills


def test_an_exit_by_itself_is_its_code() -> None:
    assert describe(3 << 8, peak_kib=0) == Exit(ExitKind.CODE, 3)


def test_a_signal_is_its_number_and_sigkill_says_how_much_memory_there_was() -> None:
    assert describe(signal.SIGSEGV, peak_kib=1) == Exit(ExitKind.SIGNAL, 11)
    killed = describe(signal.SIGKILL, peak_kib=2048)
    assert killed.detail == "not by aflow; the process held 2 MiB at its peak"
    starved = describe(signal.SIGKILL, peak_kib=3 * 1024**2, out_of_memory=True)
    assert starved.detail == "the kernel ran out of memory; the process held 3.0 GiB at its peak"


def test_the_kernel_tells_how_often_it_ran_out_of_memory() -> None:
    assert oom_kills() >= 0
