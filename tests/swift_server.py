"""OpenStack Swift with its S3 interface: proxy, account, container and object server in one process, data in a folder.

Runs on the interpreter of its own environment (`tests/s3_server.py` makes it): `python swift_server.py PORT FOLDER`.
Key `test:tester`, secret `testing`; signatures are checked. Prints READY once it answers. A third word sets its clock:
so many seconds ahead of the machine's.
"""

import eventlet

eventlet.monkey_patch()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

if len(sys.argv) > 3:  # before anything of Swift has a clock of its own
    real_time, ahead_s = time.time, float(sys.argv[3])
    time.time = lambda: real_time() + ahead_s

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from eventlet import wsgi  # noqa: E402
from swift.common import storage_policy, utils  # noqa: E402
from swift.common.ring.builder import RingBuilder  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

BACKENDS = ("account", "container", "object")

# `egg:` names come from Swift's own entry points.
SWIFT_CONF = """
[swift-hash]
swift_hash_path_prefix = test
swift_hash_path_suffix = test
[storage-policy:0]
name = single
default = yes
"""
BACKEND_CONF = """
[DEFAULT]
swift_dir = {folder}/etc
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
log_level = ERROR
[app:main]
use = egg:swift#{name}
"""
PROXY_CONF = """
[DEFAULT]
swift_dir = {folder}/etc
log_level = ERROR
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
dns_compliant_bucket_names = false
s3_acl = false
"""
PLAIN_FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "copy", "slo", "dlo")


def main(port: int, folder: Path) -> None:
    parent = os.getppid()
    (folder / "etc").mkdir(parents=True)
    (folder / "devices" / "one").mkdir(parents=True)
    (folder / "etc" / "swift.conf").write_text(SWIFT_CONF)
    utils.set_swift_dir(str(folder / "etc"))
    utils.validate_hash_conf()
    storage_policy.reload_storage_policies()
    sockets = {name: eventlet.listen(("127.0.0.1", 0)) for name in BACKENDS}
    for name, socket in sockets.items():
        write_ring(folder, name, port=socket.getsockname()[1])
    for name, socket in sockets.items():
        serve(folder, name, socket, BACKEND_CONF.format(folder=folder, name=name))
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in PLAIN_FILTERS)
    serve(folder, "proxy", eventlet.listen(("127.0.0.1", port)), PROXY_CONF.format(folder=folder) + filters)
    print("READY", flush=True)
    while os.getppid() == parent:  # a worker of pytest that is killed at Ctrl-C kills nobody
        eventlet.sleep(1)


def write_ring(folder: Path, name: str, *, port: int) -> None:
    builder = RingBuilder(4, 1, 0)  # 16 partitions, one replica
    address = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    builder.add_dev({"region": 1, "zone": 1, "device": "one", "weight": 1.0, "meta": "", **address})
    builder.rebalance()
    builder.get_ring().save(str(folder / "etc" / f"{name}.ring.gz"))


def serve(folder: Path, name: str, socket: Any, configuration: str) -> None:
    path = folder / "etc" / f"{name}-server.conf"
    path.write_text(configuration)
    log = (folder / f"{name}.log").open("w")
    eventlet.spawn(
        wsgi.server, socket, loadapp(str(path)), log=log, log_output=False, protocol=SwiftHttpProtocol, keepalive=True
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
