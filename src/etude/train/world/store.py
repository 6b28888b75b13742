"""The store in which ranks meet: small values by name, kept by one process for all."""

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore
else:
    from torch.distributed import HashStore, PrefixStore, Store, TCPStore

__all__ = ["Store", "keep_store", "meet"]

MEET_SECONDS = 300


def keep_store() -> TCPStore:
    """A store kept by this process, at a port of its own, for ranks on its machine."""
    return _open("127.0.0.1", 0, keeps=True)


def of_one() -> Store:
    """A store in the memory of this process, for one rank."""
    return HashStore()


def meet(address: str, port: int, *, keeps: bool) -> Store:
    """The store at an address, kept by this process or by another."""
    return _open(address, port, keeps=keeps)


def apart(store: Store, name: str) -> Store:
    """The same store for names that are told apart from others'."""
    return PrefixStore(name, store)


def _open(address: str, port: int, *, keeps: bool) -> TCPStore:
    timeout = timedelta(seconds=MEET_SECONDS)
    return TCPStore(address, port, is_master=keeps, wait_for_workers=False, timeout=timeout)
