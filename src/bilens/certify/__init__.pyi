from .contrast import (
    Contrast as Contrast,
    PairSpectra as PairSpectra,
    UniversalPerturbation as UniversalPerturbation,
    prepare as prepare,
    universal_perturbation as universal_perturbation,
)
from .input_influence import (
    InfluenceRange as InfluenceRange,
    RemovedInputs as RemovedInputs,
    influence_range as influence_range,
    remove_inputs as remove_inputs,
)
from .input_use import UnusedInputs as UnusedInputs, unused_inputs as unused_inputs
from .inputs import RadiusStatus as RadiusStatus
from .l2_certificates import (
    L2Radius as L2Radius,
    certified_accuracy as certified_accuracy,
    l2_radius as l2_radius,
    projected_margin as projected_margin,
)
from .linf_certificates import LinfRadius as LinfRadius, linf_radius as linf_radius
from .quadric_distance import (
    QuadricDistance as QuadricDistance,
    distance_to_quadric as distance_to_quadric,
)
from .spectrum_enclosure import (
    SpectrumEnclosure as SpectrumEnclosure,
    enclose_spectrum as enclose_spectrum,
)
from .stability import (
    QuantisationStability as QuantisationStability,
    SpectrumStability as SpectrumStability,
    quantisation_stability as quantisation_stability,
    spectrum_stability as spectrum_stability,
)
from .truncated_agreement import (
    CertifiedAgreement as CertifiedAgreement,
    certified_agreement as certified_agreement,
)
from .truncation import (
    InputBounds as InputBounds,
    TruncationError as TruncationError,
    smallest_k as smallest_k,
    truncated_input_bound as truncated_input_bound,
    truncation_error as truncation_error,
    truncation_moments as truncation_moments,
)
from .trust_region import TrustRegion as TrustRegion, solve_trust_region as solve_trust_region

__all__: list[str]
