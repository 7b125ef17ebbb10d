"""A million records: listed in under a minute, in pages of a thousand, and held in a few bytes each."""

import time
import tracemalloc

import pytest

from pipeline.ledger import Ledger, record_key
from pipeline.store import StorageSettings, Store, open_store
from tests.paging_server import PAGE, Listing, listing_server

COUNT = 1_000_000
MOST_S = 60.0  # of this process's CPU, the server's included: what else runs on the machine does not count
MOST_KEY_BYTES = 80  # at the most, while they are sorted; as Python's strings in a set they are 190


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")


def key(number: int) -> str:
    return record_key(f"{number:016x}", "0" * 16)


def listing_of(count: int) -> Listing:
    return Listing(f"out/{record_key('{0:016x}', '0' * 16)}", count)


def out(address: str) -> Store:
    return open_store("s3://bucket/out", StorageSettings(endpoint_url=address))


@pytest.mark.slow
def test_a_million_records_are_listed_in_a_minute() -> None:
    listing = listing_of(COUNT)
    with listing_server(listing) as address:
        began = time.process_time()
        done = Ledger(out(address)).done_keys()
        assert len(done) == COUNT
        seconds = time.process_time() - began
    assert listing.num_pages == COUNT // PAGE
    asked = [key(0), key(COUNT - 1), key(COUNT)]
    assert done.contains(asked).tolist() == [True, True, False]
    assert seconds < MOST_S


def test_their_keys_are_not_kept() -> None:
    count = 30 * PAGE
    with listing_server(listing_of(count)) as address:
        store = out(address)
        next(store.list("records"))  # what is loaded once
        tracemalloc.start()
        done = Ledger(store).done_keys()
        assert len(done) == count
        kept, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 17 * count + 500_000
    assert most < MOST_KEY_BYTES * count + 3_000_000  # and a page or two
