"""The rules of a verdict. Without torch: reports say them, records hold how they ended."""
