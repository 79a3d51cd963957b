"""The documents that the explorer answers with: typed, frozen records, without torch."""
