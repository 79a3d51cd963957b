"""The schema: typed, frozen records of everything that bilens writes as JSON. Without torch."""
