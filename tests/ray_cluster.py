"""A cluster of Ray with two nodes on this machine: `python -m ray_cluster`.

It says where it is, and does `remove` and `add` of the second node, a line each, until the input
ends.
"""

import sys
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "memory": 4 << 30}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def added(cluster: Any, attempts: int = 3, **more: Any) -> Any:
    """Start a node; Ray gives it half a minute, which is too little on a busy machine."""
    try:
        return cluster.add_node(**NODE, **more)
    except Exception:
        if not attempts:
            raise
        return added(cluster, attempts - 1, **more)


def main() -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster()
    added(cluster, include_dashboard=False)
    node = added(cluster)
    say("127.0.0.1:" + cluster.address.rpartition(":")[2])
    for line in sys.stdin:
        if line.strip() == "remove":
            cluster.remove_node(node, allow_graceful=False)
        else:
            node = added(cluster)
        say("done")
    cluster.shutdown()


if __name__ == "__main__":
    main()
