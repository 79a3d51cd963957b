"""A cluster of Ray with two nodes on this machine: `python -m ray_cluster`.

It says where it is; with a line of input it removes the second node, and it ends with the input.
"""

import sys
from typing import Any

from bench.sweep.engines import add_node


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster()
    add_node(cluster, include_dashboard=False)
    node = add_node(cluster)
    say("127.0.0.1:" + cluster.address.rpartition(":")[2])
    for _ in sys.stdin:  # to remove it
        cluster.remove_node(node, allow_graceful=False)
        say("removed")
    cluster.shutdown()


if __name__ == "__main__":
    main()
