"""A cluster of Ray with two nodes on this machine: `python -m ray_cluster`.

It says where it is; with a line of input it removes the second node, and it ends with the input.
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
    for _ in sys.stdin:  # to remove it
        cluster.remove_node(node, allow_graceful=False)
        say("removed")
    cluster.shutdown()


if __name__ == "__main__":
    main()
