"""Print the instruction sets that torch can be told to use on this processor, a word each.

`ATEN_CPU_CAPABILITY` is believed: one that the processor lacks ends the program.
"""

import torch

SETS = ("default", "avx2", "avx512")


def main() -> None:
    largest = torch.backends.cpu.get_cpu_capability().lower()
    print(*SETS[: SETS.index(largest) + 1 if largest in SETS else 1])


if __name__ == "__main__":
    main()
