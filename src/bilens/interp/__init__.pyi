# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .circuits import low_rank_fit as low_rank_fit
from .contrasts import (
    ContrastRanking as ContrastRanking,
    WeightedSpace as WeightedSpace,
    contrast_directions as contrast_directions,
    rank_contrasts as rank_contrasts,
    weighted_space as weighted_space,
)
from .interventions import (
    NUM_RESAMPLES as NUM_RESAMPLES,
    Edit as Edit,
    InputDirections as InputDirections,
    Kind as Kind,
    Where as Where,
    ablation as ablation,
    causal_check as causal_check,
    interval as interval,
    share_of as share_of,
    steering as steering,
)
from .layer_trace import (
    latent_map as latent_map,
    only as only,
    rank_latents as rank_latents,
    trace_layer as trace_layer,
)
from .random_dictionaries import (
    LEVEL as LEVEL,
    NUM_DICTIONARIES as NUM_DICTIONARIES,
    RandomDictionary as RandomDictionary,
    chance_of as chance_of,
    random_dictionary as random_dictionary,
)
from .traced_layer import (
    LatentReader as LatentReader,
    LoadedSAE as LoadedSAE,
    TracedLayer as TracedLayer,
    TracedText as TracedText,
    eigenvector_tokens as eigenvector_tokens,
    held_out_text as held_out_text,
    open_layer as open_layer,
    open_sae as open_sae,
    output_tokens as output_tokens,
    read_text as read_text,
)
