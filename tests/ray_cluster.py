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


def main() -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    node: Any = cluster.add_node(**NODE)
    say("127.0.0.1:" + cluster.address.rpartition(":")[2])
    for line in sys.stdin:
        if line.strip() == "remove":
            cluster.remove_node(node, allow_graceful=False)
        else:
            node = cluster.add_node(**NODE)
        say("done")
    cluster.shutdown()


if __name__ == "__main__":
    main()
