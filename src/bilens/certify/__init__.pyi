from .agreement import (
    CertifiedAgreement as CertifiedAgreement,
    certified_agreement as certified_agreement,
)
from .contrast import Contrast as Contrast, PairSpectra as PairSpectra, prepare as prepare
from .influence import InfluenceRange as InfluenceRange, influence_range as influence_range
from .input_removal import RemovedInputs as RemovedInputs, remove_inputs as remove_inputs
from .input_use import UnusedInputs as UnusedInputs, unused_inputs as unused_inputs
from .l2_certificates import l2_radius as l2_radius
from .l2_record import (
    L2Radius as L2Radius,
    certified_accuracy as certified_accuracy,
    projected_margin as projected_margin,
)
from .linf_certificates import LinfRadius as LinfRadius, linf_radius as linf_radius
from .quadric_distance import (
    QuadricDistance as QuadricDistance,
    distance_to_quadric as distance_to_quadric,
)
from .stability import (
    QuantisationStability as QuantisationStability,
    SpectrumStability as SpectrumStability,
    quantisation_stability as quantisation_stability,
    spectrum_stability as spectrum_stability,
)
from .status import RadiusStatus as RadiusStatus
from .truncated_moments import truncation_moments as truncation_moments
from .truncation import (
    InputBounds as InputBounds,
    TruncationError as TruncationError,
    smallest_k as smallest_k,
    truncated_input_bound as truncated_input_bound,
    truncation_error as truncation_error,
)
from .trust_region import TrustRegion as TrustRegion, solve_trust_region as solve_trust_region
from .universal import (
    UniversalPerturbation as UniversalPerturbation,
    universal_perturbation as universal_perturbation,
)

__all__: list[str]
