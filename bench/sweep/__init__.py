"""What a sweep costs: a model in the layout of DeepSeek-V3, engines, kills, and predictions."""
