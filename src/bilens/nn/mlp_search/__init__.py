"""The MLPs inside any module: found by tracing it, or by watching it run."""
